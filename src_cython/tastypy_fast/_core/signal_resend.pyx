"""A signal that Python cannot overlook.

Python's own handler only makes a note, which is looked at before the next piece of bytecode. A signal that comes just
before a call that waits is seen when the call ends, and that may be never: multiprocessing's Pool terminates its
workers when they have sent the last result and are about to wait for more, and then waits for them. So the signal is
sent again, by a timer of the system, until the handler that was written in Python says that it runs: a repetition ends
the waiting with EINTR.

Only on Linux; elsewhere (macOS has no timers with a signal of one's own choice) a signal remains what Python makes it.
"""

cdef extern from *:
    """
    #ifdef __linux__

    #include <errno.h>
    #include <signal.h>
    #include <time.h>
    #include <unistd.h>

    static struct sigaction noted_by;
    static timer_t repetition;
    static pid_t repeated_in;

    static void set_repetition(long nanoseconds) {
        /* Once; the repetition sets it again, if it finds this handler still. (A child of fork() does not have its
           parent's timer, but may have one with the same number by then.) */
        struct itimerspec when = {{0, 0}, {0, nanoseconds}};
        if (repeated_in == getpid())
            timer_settime(repetition, 0, &when, NULL);
    }

    static void note_and_repeat(int number) {
        int error = errno;
        noted_by.sa_handler(number);
        set_repetition(100 * 1000 * 1000);
        errno = error;
    }

    static void begin_repeating(int number) {
        struct sigaction action;
        if (repeated_in != getpid()) {
            struct sigevent event = {0};
            event.sigev_notify = SIGEV_SIGNAL;
            event.sigev_signo = number;
            if (timer_create(CLOCK_MONOTONIC, &event, &repetition) != 0)
                return;
            repeated_in = getpid();
        }
        if (sigaction(number, NULL, &action) != 0 || (action.sa_flags & SA_SIGINFO)
                || action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN || action.sa_handler == note_and_repeat)
            return;
        noted_by = action;
        action.sa_handler = note_and_repeat;
        sigaction(number, &action, NULL);
    }

    static void stop_repeating(void) {
        set_repetition(0);
    }

    #else

    static void begin_repeating(int number) {}
    static void stop_repeating(void) {}

    #endif
    """
    void begin_repeating(int number)
    void stop_repeating()

__all__ = ["resend_until_handled", "stop"]


def resend_until_handled(int number):
    """Send the signal again, ten times a second, from when it comes until ``stop()``. It has a handler written in
    Python already; in a forked child this is to be called again. One signal in a process can have this."""
    begin_repeating(number)


def stop():
    """The handler runs: no more of it."""
    stop_repeating()
