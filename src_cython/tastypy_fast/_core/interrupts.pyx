"""Call a function to its end, although Ctrl-C interrupts it or would interrupt it.

The module is compiled, because Python raises KeyboardInterrupt between two steps of Python code, also at the first line
of a function and in an ``except`` clause. Here it can come only out of a call.
"""

from _signal import SIGINT, default_int_handler, getsignal, signal
from threading import current_thread, main_thread

__all__ = ["call_to_the_end", "call_undisturbed"]


cdef bint is_main_thread() except -1:
    return current_thread() is main_thread()


def ignore(number, frame):
    """Handle Ctrl-C without an exception, and without ending a wait."""


def call_to_the_end(work not None):
    """Call ``work(False)``. If Ctrl-C ends it, call ``work(True)``, which no further Ctrl-C ends.

    Raises KeyboardInterrupt when the work is done. Python raises it in the main thread only.
    """
    # The handler of the program, while it is replaced.
    before = None
    cdef bint interrupted = False
    while True:
        try:
            if interrupted and before is None and getsignal(SIGINT) is not None:
                # Before it installs the handler, it may raise for a Ctrl-C that is pending.
                before = signal(SIGINT, ignore)
            work(interrupted)
            break
        except KeyboardInterrupt:
            # Do not keep the exception, because its frames would keep a transaction open.
            interrupted = True
    if before is not None:
        signal(SIGINT, before)
    if interrupted:
        raise KeyboardInterrupt


def call_undisturbed(work not None):
    """Call ``work()``, and raise KeyboardInterrupt for a Ctrl-C only afterwards. It must wait for nothing.

    In a thread that is not the main thread this only calls it.
    """
    cdef list noted = []
    if getsignal(SIGINT) is not default_int_handler or not is_main_thread():
        return work()
    signal(SIGINT, lambda number, frame: noted.append(number))
    try:
        return work()
    finally:
        signal(SIGINT, default_int_handler)
        if noted:
            raise KeyboardInterrupt
