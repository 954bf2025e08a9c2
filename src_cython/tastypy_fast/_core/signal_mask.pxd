# Keep the handlers of signals from running for a moment, by blocking the signals of this thread.

cdef extern from *:
    """
    #include <pthread.h>
    #include <signal.h>
    typedef struct { sigset_t before; } SignalMask;
    /* Not those that an instruction of the program causes, because they cannot wait. */
    static inline void block_signals(SignalMask *mask) {
        sigset_t all;
        sigfillset(&all);
        sigdelset(&all, SIGSEGV);
        sigdelset(&all, SIGBUS);
        sigdelset(&all, SIGFPE);
        sigdelset(&all, SIGILL);
        sigdelset(&all, SIGTRAP);
        sigdelset(&all, SIGSYS);
        sigdelset(&all, SIGABRT);
        pthread_sigmask(SIG_BLOCK, &all, &mask->before);
    }
    static inline void restore_signals(const SignalMask *mask) {
        pthread_sigmask(SIG_SETMASK, &mask->before, NULL);
    }
    """
    ctypedef struct SignalMask:
        pass
    void block_signals(SignalMask* mask) noexcept nogil
    void restore_signals(const SignalMask* mask) noexcept nogil
