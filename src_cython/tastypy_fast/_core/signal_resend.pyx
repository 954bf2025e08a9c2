"""Resend a signal until its Python handler runs, because Python may otherwise miss it in a blocking call.

Python's own C handler only sets a flag, which is checked before the next bytecode. If a signal arrives just before a
blocking call, its Python handler runs when the call returns, which may be never. For example, multiprocessing's Pool
terminates its workers when they are about to wait for more work, and then joins them. So a timer of the system resends
the signal until the Python handler calls ``stop()``. The second signal ends the blocking call with EINTR.

This works only on Linux, because macOS has no timers that send a chosen signal.
"""

cdef extern from *:
    """
    #ifdef __linux__

    #include <errno.h>
    #include <signal.h>
    #include <time.h>
    #include <unistd.h>

    /* One of each for each signal. */
    static struct sigaction noted_by[NSIG];
    static timer_t repetition[NSIG];
    static pid_t repeated_in[NSIG];

    static void set_repetition(int number, long nanoseconds) {
        /* The timer fires once. The signal that it sends sets it again, if this handler is still installed. Check the
           process id, because a child of fork() does not inherit the timer and may have another with its number. */
        struct itimerspec when = {{0, 0}, {0, nanoseconds}};
        if (repeated_in[number] == getpid())
            timer_settime(repetition[number], 0, &when, NULL);
    }

    static void note_and_repeat(int number) {
        int error = errno;
        noted_by[number].sa_handler(number);
        set_repetition(number, 100 * 1000 * 1000);
        errno = error;
    }

    static void begin_repeating(int number) {
        struct sigaction action;
        if (repeated_in[number] != getpid()) {
            struct sigevent event = {0};
            event.sigev_notify = SIGEV_SIGNAL;
            event.sigev_signo = number;
            if (timer_create(CLOCK_MONOTONIC, &event, &repetition[number]) != 0)
                return;
            repeated_in[number] = getpid();
        }
        if (sigaction(number, NULL, &action) != 0 || (action.sa_flags & SA_SIGINFO)
                || action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN || action.sa_handler == note_and_repeat)
            return;
        noted_by[number] = action;
        action.sa_handler = note_and_repeat;
        sigaction(number, &action, NULL);
    }

    static void stop_repeating(int number) {
        set_repetition(number, 0);
    }

    #else

    static void begin_repeating(int number) {}
    static void stop_repeating(int number) {}

    #endif
    """
    void begin_repeating(int number)
    void stop_repeating(int number)

__all__ = ["resend_until_handled", "stop"]


def resend_until_handled(int number):
    """Resend a signal ten times a second, from its arrival until ``stop()``.

    The signal must have a Python handler. A forked child has to call this again.
    """
    begin_repeating(number)


def stop(int number):
    """Stop resending a signal. The Python handler calls this when it runs."""
    stop_repeating(number)
