/* Preloaded into a test's process: fails the k-th write to a file below a folder, once.

   FAIL_WRITES_BELOW   the folder
   FAIL_WRITES         K:ERRNO, or K:short for a write of half of what was asked for; K counts from 1
   The file FAIL_WRITES_DONE is made when that write has failed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static long writes;

static int is_watched(int fd) {
    const char *below = getenv("FAIL_WRITES_BELOW");
    char link[64], name[4096];
    ssize_t size;
    if (!below) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = readlink(link, name, sizeof name - 1);
    if (size < 0) return 0;
    name[size] = 0;
    return strncmp(name, below, strlen(below)) == 0;
}

/* 0: go on, 1: write half, -1: fail with errno set. */
static int decide(int fd) {
    const char *spec = getenv("FAIL_WRITES"), *done = getenv("FAIL_WRITES_DONE"), *how;
    if (!spec || !is_watched(fd) || ++writes != atol(spec)) return 0;
    if (done) close(open(done, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    how = strchr(spec, ':') + 1;
    if (strcmp(how, "short") == 0) return 1;
    errno = atoi(how);
    return -1;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    int what = decide(fd);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pwrite64");
    return what < 0 ? -1 : real(fd, data, what ? size / 2 : size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
    static ssize_t (*real)(int, const struct iovec *, int, off64_t);
    int what = decide(fd);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pwritev64");
    return what < 0 ? -1 : real(fd, parts, what ? (count + 1) / 2 : count, at);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pwritev64(fd, parts, count, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    static ssize_t (*real)(int, const struct iovec *, int);
    int what = decide(fd);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "writev");
    return what < 0 ? -1 : real(fd, parts, what ? (count + 1) / 2 : count);
}

ssize_t write(int fd, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    int what = decide(fd);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "write");
    return what < 0 ? -1 : real(fd, data, what ? size / 2 : size);
}
