"""A process that applies requested operations to a shared store."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from tests.support.children import Child

which = st.integers(0, 1)


class Remote(Child):
    """A process with a store. ``ask(function, ...)`` makes it call a function of a module with its State."""

    def __init__(self, cls, path, **options):
        super().__init__(_serve, cls, path, options)

    def ask(self, function, *arguments):
        """The result of the function, or the type and error that it raised."""
        self.pipe.send((function, arguments))
        return self.pipe.recv()


def _serve(pipe, cls, path, options):
    state = State(cls(path, **options))
    while True:
        function, arguments = pipe.recv()
        pipe.send(outcome(function, state, *arguments))


@dataclass
class State:
    """The objects of a process."""

    store: object
    loops: dict = field(default_factory=dict)
    scopes: list = field(default_factory=list)


def outcome(function, *arguments):
    try:
        return "returned", function(*arguments)
    except Exception as error:
        return "raised", type(error)


def enter(state, kind):
    state.scopes.append(getattr(state.store, kind)())
    state.scopes[-1].__enter__()


def leave(state, fails):
    error = ZeroDivisionError() if fails else None
    state.scopes.pop().__exit__(type(error) if fails else None, error, None)


def call(state, name, *arguments):
    return getattr(state.store, name)(*arguments)


def go_on(state, number):
    return next(state.loops[number], THE_END)


def reopen(state):
    state.loops.clear()
    state.store.close()
    cls, path, arguments = state.store.__reduce__()[1]
    state.store = cls(path, **arguments)


THE_END = "the end"
