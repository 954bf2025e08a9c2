"""Let signals wait for a moment, whichever thread receives them.

Blocking the signals of the main thread is not enough, because the system then gives a signal to any other thread, and
Python calls its handler in the main thread nevertheless. So the handlers are replaced. The module is compiled, because
Python calls handlers between two steps of Python code.
"""

cimport cython

from _signal import getsignal, raise_signal, signal, valid_signals
from threading import current_thread, main_thread

__all__ = ["HeldSignals"]

cdef tuple SIGNALS = tuple(sorted(valid_signals()))


@cython.final
cdef class HeldSignals:
    """Replaces the Python handlers of all signals from ``hold()`` to ``release()``, if this is the main thread.

    Only the main thread calls handlers. Cost: about 10 microseconds.
    """

    def __cinit__(self):
        self.handlers = {}
        self.arrived = []

    def __call__(self, number, frame):
        # As the system does it: a signal that arrives again while it is pending is one signal.
        if number not in self.arrived:
            self.arrived.append(number)

    cdef int hold(self) except -1:
        """Replace the handlers. If one that was pending raises now, this replaces none."""
        if current_thread() is not main_thread():
            return 0
        try:
            for number in SIGNALS:
                handler = getsignal(number)
                if callable(handler):
                    self.handlers[number] = handler
                    signal(number, self)
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
