/* Preloaded into a process: records what it writes below a folder, and makes one write or flush fail.

   POWERCUT_BELOW   the folder
   POWERCUT_LOG     the file to which the records are appended, by all processes. Their order there is the order of the
                    calls, because a record is appended before the call returns.
   POWERCUT_FAIL    KIND:K:HOW. The K-th write or flush of this process below the folder fails, once; K counts from 1.
                    KIND: "write" or "flush". HOW: an errno, "short" (half of a write), or "kill" (SIGKILL instead of
                    the call).

   Flushes and O_DSYNC are recorded, but not done. So a recording is fast, and its files may be on a disk. Writes through
   a memory map are not recorded: LMDB writes only lock.mdb like that.

   The program appends its own records with powercut_mark(). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* tests/power_cuts/recorder.py has the same numbers. */
enum { WRITE = 1, DSYNC_WRITE, TRUNCATE, FLUSH_BEGIN, FLUSH_END, CREATE, MKDIR, RENAME, UNLINK, MARK, FAULT };

struct record {
    uint32_t kind, pid;
    uint64_t inode, offset, size;
};

static char below[PATH_MAX];
static size_t below_size;
static int log_fd = -1;
static char fail_kind[8], fail_how[16];
static long fail_at;
static long writes, flushes;
/* Whether a descriptor was opened with O_DSYNC. */
static unsigned char is_dsync[4096];

/* The next definition of a function, which is that of the C library. */
#define REAL(name, ...) ({ \
    static __typeof__(&name) real; \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name); \
    real(__VA_ARGS__); \
})

/* Begin: record what is written below ``folder`` into ``log``, and fail as POWERCUT_FAIL says, or not if it is NULL. */
void powercut_begin(const char *folder, const char *log, const char *fail) {
    if (strlen(folder) >= sizeof below) abort();
    strcpy(below, folder);
    below_size = strlen(below);
    if (log_fd >= 0) close(log_fd);
    log_fd = REAL(open64, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    writes = flushes = fail_at = 0;
    if (fail && sscanf(fail, "%7[^:]:%ld:%15s", fail_kind, &fail_at, fail_how) != 3) abort();
}

__attribute__((constructor)) static void start(void) {
    const char *folder = getenv("POWERCUT_BELOW"), *log = getenv("POWERCUT_LOG");
    if (folder && log) powercut_begin(folder, log, getenv("POWERCUT_FAIL"));
}

static void append(uint32_t kind, uint64_t inode, uint64_t offset, const struct iovec *data, int count, size_t size) {
    struct record head = {kind, (uint32_t)getpid(), inode, offset, size};
    struct iovec parts[IOV_MAX];
    int used = 1, error = errno;
    if (log_fd < 0) return;
    parts[0].iov_base = &head;
    parts[0].iov_len = sizeof head;
    for (int at = 0; at < count && size && used < IOV_MAX; at++) {
        parts[used] = data[at];
        if (parts[used].iov_len > size) parts[used].iov_len = size;
        size -= parts[used++].iov_len;
    }
    /* A record that is not complete would make the others unreadable. */
    if (size || REAL(writev, log_fd, parts, used) != (ssize_t)(sizeof head + head.size)) abort();
    errno = error;
}

static void append_text(uint32_t kind, uint64_t inode, const char *text, size_t size) {
    struct iovec data = {(void *)text, size};
    append(kind, inode, 0, &data, 1, size);
}

void powercut_mark(const char *text) { append_text(MARK, 0, text, strlen(text)); }

static int is_below(const char *path) {
    return below_size && strncmp(path, below, below_size) == 0 && (path[below_size] == '/' || !path[below_size]);
}

/* Whether a descriptor is a file or folder below the watched one, and which. */
static int is_watched(int fd, uint64_t *inode) {
    char link[64], path[PATH_MAX];
    struct stat status;
    int error = errno, found = 0;
    ssize_t size;
    if (below_size && fd >= 0) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        size = readlink(link, path, sizeof path - 1);
        if (size > 0) {
            path[size] = 0;
            found = is_below(path) && fstat(fd, &status) == 0;
        }
        if (found) *inode = status.st_ino;
    }
    errno = error;
    return found;
}

enum { GO_ON, FAIL, SHORT };

/* What happens to a write or flush. */
static int decide(const char *kind, long *counter) {
    char text[64];
    if (++*counter != fail_at || strcmp(kind, fail_kind)) return GO_ON;
    snprintf(text, sizeof text, "%s %ld %s", kind, fail_at, fail_how);
    append_text(FAULT, 0, text, strlen(text));
    if (!strcmp(fail_how, "kill")) kill(getpid(), SIGKILL);
    if (!strcmp(fail_how, "short")) return SHORT;
    errno = atoi(fail_how);
    return FAIL;
}

/* Writes */

static void append_write(int fd, uint64_t inode, off64_t at, const struct iovec *data, int count, ssize_t done) {
    if (done <= 0) return;
    append(fd < (int)sizeof is_dsync && is_dsync[fd] ? DSYNC_WRITE : WRITE, inode, at, data, count, done);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    struct iovec part = {(void *)data, size};
    uint64_t inode;
    ssize_t done;
    if (is_watched(fd, &inode)) {
        switch (decide("write", &writes)) {
            case FAIL: return -1;
            case SHORT: size /= 2;
        }
        done = REAL(pwrite64, fd, data, size, at);
        append_write(fd, inode, at, &part, 1, done);
        return done;
    }
    return REAL(pwrite64, fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }

ssize_t write(int fd, const void *data, size_t size) {
    struct iovec part = {(void *)data, size};
    uint64_t inode;
    ssize_t done;
    if (is_watched(fd, &inode)) {
        switch (decide("write", &writes)) {
            case FAIL: return -1;
            case SHORT: size /= 2;
        }
        done = REAL(write, fd, data, size);
        append_write(fd, inode, lseek64(fd, 0, SEEK_CUR) - done, &part, 1, done);
        return done;
    }
    return REAL(write, fd, data, size);
}

/* Several parts: at ``at``, or where the file stands if that is negative. */
static ssize_t write_parts(int fd, const struct iovec *parts, int count, off64_t at) {
    struct iovec half[IOV_MAX];
    uint64_t inode;
    size_t size = 0;
    ssize_t done;
    int is_one = is_watched(fd, &inode), used = 0;
    if (is_one) {
        switch (decide("write", &writes)) {
            case FAIL: return -1;
            case SHORT:
                for (int n = 0; n < count; n++) size += parts[n].iov_len;
                size /= 2;
                for (int n = 0; n < count && size; n++) {
                    half[used] = parts[n];
                    if (half[used].iov_len > size) half[used].iov_len = size;
                    size -= half[used++].iov_len;
                }
                parts = half;
                count = used;
        }
    }
    done = at < 0 ? REAL(writev, fd, parts, count) : REAL(pwritev64, fd, parts, count, at);
    if (is_one) append_write(fd, inode, at < 0 ? lseek64(fd, 0, SEEK_CUR) - done : at, parts, count, done);
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) { return write_parts(fd, parts, count, -1); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return write_parts(fd, parts, count, at); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return write_parts(fd, parts, count, at); }
/* os.pwritev() of Python */
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t at, int flags) {
    (void)flags;
    return write_parts(fd, parts, count, at);
}

int ftruncate64(int fd, off64_t size) {
    uint64_t inode;
    int result = REAL(ftruncate64, fd, size);
    if (!result && is_watched(fd, &inode)) append(TRUNCATE, inode, size, NULL, 0, 0);
    return result;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

/* Flushes */

static int flush(int fd, const char *name) {
    uint64_t inode;
    int result = 0, error = errno;
    if (!is_watched(fd, &inode)) {
        int (*real)(int);
        *(void **)&real = dlsym(RTLD_NEXT, name);
        return real(fd);
    }
    append(FLUSH_BEGIN, inode, 0, NULL, 0, 0);
    if (decide("flush", &flushes) != GO_ON) {
        result = -1;
        error = errno;
    }
    append(FLUSH_END, inode, result ? 1 : 0, NULL, 0, 0);
    errno = error;
    return result;
}

int fsync(int fd) { return flush(fd, "fsync"); }
int fdatasync(int fd) { return flush(fd, "fdatasync"); }

/* Names */

/* Note how a file was opened, and record that it was created or truncated. */
static int opened(int fd, int flags, int is_new) {
    char link[64], path[PATH_MAX];
    uint64_t inode;
    ssize_t size;
    if (fd < 0) return fd;
    if (fd < (int)sizeof is_dsync) is_dsync[fd] = 0;
    if (!is_watched(fd, &inode)) return fd;
    if (fd < (int)sizeof is_dsync) is_dsync[fd] = (flags & O_DSYNC) == O_DSYNC;
    if (is_new) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        size = readlink(link, path, sizeof path - 1);
        append_text(CREATE, inode, path, size);
    } else if (flags & O_TRUNC) {
        append(TRUNCATE, inode, 0, NULL, 0, 0);
    }
    return fd;
}

static int without_dsync(const char *path, int flags) { return is_below(path) ? flags & ~O_DSYNC : flags; }

static int is_missing(int folder, const char *path, int flags) {
    int error = errno;
    int missing = (flags & O_CREAT) && faccessat(folder, path, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
    errno = error;
    return missing;
}

#define MODE(flags, last) ({ \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, last); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    } \
    mode; \
})

int open64(const char *path, int flags, ...) {
    mode_t mode = MODE(flags, flags);
    int is_new = is_missing(AT_FDCWD, path, flags);
    return opened(REAL(open64, path, without_dsync(path, flags), mode), flags, is_new);
}

int open(const char *path, int flags, ...) {
    mode_t mode = MODE(flags, flags);
    int is_new = is_missing(AT_FDCWD, path, flags);
    return opened(REAL(open, path, without_dsync(path, flags), mode), flags, is_new);
}

int openat64(int folder, const char *path, int flags, ...) {
    mode_t mode = MODE(flags, flags);
    int is_new = is_missing(folder, path, flags);
    return opened(REAL(openat64, folder, path, without_dsync(path, flags), mode), flags, is_new);
}

int mkdir(const char *path, mode_t mode) {
    struct stat status;
    int result = REAL(mkdir, path, mode);
    if (!result && is_below(path) && stat(path, &status) == 0) append_text(MKDIR, status.st_ino, path, strlen(path));
    return result;
}

int rename(const char *from, const char *to) {
    char both[2 * PATH_MAX];
    int result = REAL(rename, from, to);
    if (!result && (is_below(from) || is_below(to)))
        append_text(RENAME, 0, both, snprintf(both, sizeof both, "%s%c%s", from, 0, to));
    return result;
}

int unlink(const char *path) {
    int result = REAL(unlink, path);
    if (!result && is_below(path)) append_text(UNLINK, 0, path, strlen(path));
    return result;
}

int rmdir(const char *path) {
    int result = REAL(rmdir, path);
    if (!result && is_below(path)) append_text(UNLINK, 0, path, strlen(path));
    return result;
}
