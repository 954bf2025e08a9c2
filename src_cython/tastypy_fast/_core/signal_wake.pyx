"""Let a thread sleep until it is woken, also by a signal, and end the process by a signal.

Python runs handlers of signals in the main thread only, and only the main thread can install them. If the first store
is opened in another thread, ``wake_on()`` installs a C handler instead. It notes the signal and wakes the sleeping
threads. It calls only functions that are safe in a handler, and needs no interpreter lock.

A sleeping thread calls ``rings()``, looks for its work, and then calls ``wait()`` with that number. ``wait()`` returns
at once if the bell has rung since. So no ring is lost, and each ring wakes every sleeping thread.
"""

from cpython.ref cimport Py_DECREF, Py_INCREF

cdef extern from "Python.h":
    int Py_AddPendingCall(int (*function)(void*) noexcept, void* argument) noexcept

cdef extern from *:
    """
    #include <errno.h>
    #include <limits.h>
    #include <signal.h>
    #include <stddef.h>
    #include <unistd.h>

    /* Counts the rings. */
    static unsigned int bell;

    #ifdef __linux__

    #include <linux/futex.h>
    #include <sys/syscall.h>

    static void prepare_bell(void) {}

    static void ring_bell(void) {
        __atomic_add_fetch(&bell, 1, __ATOMIC_SEQ_CST);
        syscall(SYS_futex, &bell, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    }

    static void wait_for_bell(unsigned int seen, double seconds) {
        /* The kernel measures a timeout by the monotonic clock, and reads two longs. */
        long timeout[2];
        timeout[0] = (long)seconds;
        timeout[1] = (long)((seconds - (double)timeout[0]) * 1e9);
        syscall(SYS_futex, &bell, FUTEX_WAIT_PRIVATE, seen, seconds < 0 ? NULL : timeout, NULL, 0);
    }

    #else

    /* macOS has no public futex, and no POSIX semaphores without names. */
    #include <mach/mach.h>
    #include <mach/semaphore.h>

    static semaphore_t semaphore;
    static int sleeping;

    static void prepare_bell(void) {
        /* A child of fork() does not inherit a semaphore of Mach. */
        sleeping = 0;
        semaphore_create(mach_task_self(), &semaphore, SYNC_POLICY_FIFO, 0);
    }

    static void ring_bell(void) {
        int count;
        __atomic_add_fetch(&bell, 1, __ATOMIC_SEQ_CST);
        /* Once for each thread that sleeps, and for one that is about to sleep. */
        for (count = __atomic_load_n(&sleeping, __ATOMIC_SEQ_CST) + 1; count > 0; count--)
            semaphore_signal(semaphore);
    }

    static void wait_for_bell(unsigned int seen, double seconds) {
        mach_timespec_t timeout;
        __atomic_add_fetch(&sleeping, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&bell, __ATOMIC_SEQ_CST) == seen) {
            if (seconds < 0) {
                semaphore_wait(semaphore);
            } else {
                timeout.tv_sec = (unsigned int)seconds;
                timeout.tv_nsec = (clock_res_t)((seconds - (double)timeout.tv_sec) * 1e9);
                semaphore_timedwait(semaphore, timeout);
            }
        }
        __atomic_sub_fetch(&sleeping, 1, __ATOMIC_SEQ_CST);
    }

    #endif

    static unsigned int count_rings(void) {
        return __atomic_load_n(&bell, __ATOMIC_SEQ_CST);
    }

    /* The first signal that came, and its process, because a child of fork() inherits this memory. */
    static volatile sig_atomic_t arrived_number;
    static volatile pid_t arrived_in;

    static void note_and_ring(int number) {
        int error = errno;
        if (arrived_number == 0 || arrived_in != getpid()) {
            arrived_in = getpid();
            arrived_number = number;
        }
        ring_bell();
        errno = error;
    }

    static int find_arrived(void) {
        return arrived_in == getpid() ? arrived_number : 0;
    }

    static int has_handler(int number, void (*handler)(int)) {
        struct sigaction action;
        return sigaction(number, NULL, &action) == 0 && !(action.sa_flags & SA_SIGINFO) && action.sa_handler == handler;
    }

    static int is_unhandled(int number) {
        return has_handler(number, SIG_DFL) || has_handler(number, note_and_ring);
    }

    static int rings_on(int number) {
        return has_handler(number, note_and_ring);
    }

    static void set_handler(int number, void (*handler)(int)) {
        struct sigaction action;
        action.sa_handler = handler;
        /* System calls of the program go on, because no exception can come out of this handler. */
        action.sa_flags = SA_RESTART | SA_ONSTACK;
        sigemptyset(&action.sa_mask);
        sigaction(number, &action, NULL);
    }

    static void ring_on(int number) {
        if (has_handler(number, SIG_DFL))
            set_handler(number, note_and_ring);
    }

    static void restore_default(int number) {
        if (has_handler(number, note_and_ring))
            set_handler(number, SIG_DFL);
    }

    static void die_by(int number) {
        sigset_t unblocked;
        set_handler(number, SIG_DFL);
        sigemptyset(&unblocked);
        sigaddset(&unblocked, number);
        pthread_sigmask(SIG_UNBLOCK, &unblocked, NULL);
        raise(number);
        /* The kernel ignores a signal with the default action that process 1 sends to itself. */
        _exit(128 + number);
    }
    """
    void prepare_bell()
    void ring_bell()
    unsigned int count_rings()
    void wait_for_bell(unsigned int seen, double seconds) nogil
    int find_arrived()
    int is_unhandled(int number)
    int rings_on(int number)
    void ring_on(int number)
    void restore_default(int number)
    void die_by(int number)

__all__ = [
    "arrived", "call_soon", "end_process", "has_default_action", "leave", "prepare", "ring", "rings", "wait", "wake_on",
    "wakes_on",
]

prepare_bell()


def prepare():
    """Prepare the bell anew, in a forked child."""
    prepare_bell()


def ring():
    """Wake every sleeping thread."""
    ring_bell()


def rings():
    """Return how often the bell has rung, for ``wait()``."""
    return count_rings()


def wait(unsigned int seen, double seconds):
    """Sleep until the bell rings, unless it has rung since ``rings()`` returned ``seen``.

    It may also return for no reason. ``seconds`` limits the sleep, and is negative for no limit.
    """
    with nogil:
        wait_for_bell(seen, seconds)


def has_default_action(int number):
    """Return whether nothing but ``wake_on()`` handles a signal in this process."""
    return is_unhandled(number) != 0


def wake_on(int number):
    """Ring the bell when a signal comes, if it has its default action. A handler of Python can replace this."""
    ring_on(number)


def wakes_on(int number):
    """Return whether ``wake_on()`` handles a signal now."""
    return rings_on(number) != 0


def leave(int number):
    """Give a signal its default action again, if ``wake_on()`` handles it."""
    restore_default(number)


def arrived():
    """Return the signal that has rung the bell in this process, or 0."""
    return find_arrived()


cdef int call_pending(void* work) noexcept:
    function = <object>work
    Py_DECREF(function)
    function()
    return 0


def call_soon(work not None):
    """Call ``work()`` in the main thread, when that has finished the C function that it is in."""
    Py_INCREF(work)
    if Py_AddPendingCall(call_pending, <void*>work):
        Py_DECREF(work)


def end_process(int number):
    """End this process by the default action of a signal, at once and in any thread.

    The exit status is that of the signal. In the first process of a container, which is process 1, it is 128 plus the
    number of the signal.
    """
    die_by(number)
