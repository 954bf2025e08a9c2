"""Call a function to its end, although a signal interrupts it or would interrupt it.

The module is compiled, because Python raises KeyboardInterrupt between two steps of Python code, also at the first line
of a function and in an ``except`` clause. Here it can come only out of a call.
"""

cimport cython

from _signal import SIGINT, default_int_handler, getsignal, raise_signal, signal, valid_signals
from threading import current_thread, main_thread

cdef extern from "Python.h":
    ctypedef struct PyInterpreterState:
        pass
    PyInterpreterState* PyInterpreterState_Get()
    PyInterpreterState* PyInterpreterState_Main()

__all__ = ["HeldSignals", "call_to_the_end", "call_undisturbed"]

cdef tuple SIGNALS = tuple(sorted(valid_signals()))


cdef bint is_main_thread() except -1:
    return current_thread() is main_thread()


def ignore(number, frame):
    """Handle Ctrl-C without an exception, and without ending a wait."""


@cython.final
cdef class Guard:
    """A handler that calls the program's own one, and turns its exception into one KeyboardInterrupt.

    The handler may raise anything, for example SystemExit, which would end the work.
    """
    cdef object handler
    cdef list raised

    def __call__(self, number, frame):
        try:
            self.handler(number, frame)
        except BaseException as error:
            # Keep no frames, because they would keep a transaction open.
            error.__traceback__ = error.__context__ = None
            self.raised.append(error)
        if len(self.raised) == 1 and self.raised[0] is not None:
            self.raised.append(None)
            raise KeyboardInterrupt


cdef int guard_handlers(dict guards, list raised, own) except -1:
    """Put a guard in front of each handler of the program. Does the rest if a handler has ended it."""
    cdef Guard guard
    for number in SIGNALS:
        handler = getsignal(number)
        if callable(handler) and handler is not default_int_handler and handler is not own \
                and type(handler) is not Guard:
            guard = Guard.__new__(Guard)
            guard.handler = handler
            guard.raised = raised
            guards[number] = guard
            signal(number, guard)
    return 0


def call_to_the_end(work not None, own=None):
    """Call ``work(False)``. If a signal ends it, call ``work(True)``, which no further signal ends.

    A signal ends the work if its handler raises: KeyboardInterrupt at Ctrl-C, and anything in a handler of the program.
    The first of these exceptions is raised when the work is done. Python raises it in the main thread only. ``own`` is
    the handler that this leaves in its place.
    """
    # The handler of Ctrl-C, while it is replaced.
    before = None
    cdef dict guards = {}
    cdef list raised = []
    cdef bint interrupted = False
    cdef bint is_main = is_main_thread()
    cdef bint is_guarded = not is_main
    while True:
        try:
            if not is_guarded:
                guard_handlers(guards, raised, own)
                is_guarded = True
            if interrupted and before is None and getsignal(SIGINT) is not None:
                # Before it installs the handler, it may raise for a Ctrl-C that is pending.
                before = signal(SIGINT, ignore)
            work(interrupted)
            break
        except KeyboardInterrupt:
            # Do not keep the exception, because its frames would keep a transaction open.
            interrupted = True
        except BaseException as error:
            if is_guarded:
                raise
            # A handler that has no guard yet.
            error.__traceback__ = error.__context__ = None
            raised.append(error)
            raised.append(None)
            interrupted = True
    if before is not None:
        signal(SIGINT, before)
    for number, guard in guards.items():
        if getsignal(number) is guard:
            signal(number, (<Guard>guard).handler)
    if raised:
        raise raised[0]
    if interrupted:
        raise KeyboardInterrupt


@cython.final
cdef class HeldSignals:
    """Lets signals wait from ``hold()`` to ``release()``, by replacing their Python handlers.

    Blocking the signals of the main thread is not enough, because the system then gives a signal to any other thread,
    and Python calls its handler in the main thread nevertheless. Cost: 1.1 microseconds, and 0.6 for each handler.
    """

    def __cinit__(self):
        self.handlers = {}
        self.arrived = []

    def __call__(self, number, frame):
        # As the system does it: a signal that arrives again while it is pending is one signal.
        if number not in self.arrived:
            self.arrived.append(number)

    cdef int hold(self) except -1:
        """Replace the handlers, if this thread may call them. If one that was pending raises now, replace none."""
        if PyInterpreterState_Get() != PyInterpreterState_Main() or not is_main_thread():
            return 0
        try:
            for number in SIGNALS:
                handler = getsignal(number)
                if callable(handler):
                    # It calls the handlers of pending signals first. If one of them raises, it installs nothing.
                    signal(number, self)
                    self.handlers[number] = handler
        except BaseException:
            self.release()
            raise
        return 0

    cdef int release(self) except -1:
        """Put the handlers back, and send the signals that arrived again, to their handlers.

        All of this is done, and then the first exception of a handler is raised.
        """
        error = None
        while self.handlers:
            number, handler = self.handlers.popitem()
            try:
                signal(number, handler)
            except BaseException as raised:
                # A handler that was put back was called for a pending signal. This one is still to be put back.
                self.handlers[number] = handler
                error = error or raised
        while self.arrived:
            try:
                raise_signal(self.arrived.pop(0))
            except BaseException as raised:
                error = error or raised
        if error is not None:
            raise error
        return 0


def call_undisturbed(work not None):
    """Call ``work()``, and let signals wait until it has ended. It must wait for nothing."""
    cdef HeldSignals signals = HeldSignals.__new__(HeldSignals)
    signals.hold()
    try:
        return work()
    finally:
        signals.release()
