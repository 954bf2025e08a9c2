"""Worker processes that claim tasks on request."""

from __future__ import annotations

import gc
import itertools
import os
import signal

from tastypy_fast import (
    SharedTracker,
)
from tests.support.children import Child

TASKS = 240


def tries(tracker):
    return [tracker.tries(key) for key in tracker]


class Worker(Child):
    """A child with a tracker. ``ask(function, ...)`` makes it call a function of a module with its State."""

    def __init__(self, path, **options):
        super().__init__(_serve, path, options)

    def ask(self, function, *arguments):
        self.pipe.send((function, arguments))
        return self.pipe.recv()

    def end(self, ending):
        """End the child in one of the ENDINGS."""
        self.pipe.send(("end", ending))
        return self.wait()


def _serve(pipe, path, options):
    state = State(SharedTracker(path, **options))
    while True:
        function, arguments = pipe.recv()
        if function == "end":
            ENDINGS[arguments](state)
            return
        pipe.send(function(state, *arguments))


class State:
    """The objects of a worker."""

    def __init__(self, tracker):
        self.tracker = tracker
        self.loop = None


def take(state, count=1, batch=1, kind="keys", allow_aborted=False):
    """Continue the loop, and return the keys that it yields."""
    if state.loop is None:
        state.loop = getattr(state.tracker, f"try_{kind}")(allow_aborted, batch=batch)
    return list(itertools.islice(state.loop, count))


def take_all(state, batch=1):
    state.loop = None
    return list(state.tracker.try_keys(batch=batch))


def call(state, name, *arguments):
    return getattr(state.tracker, name)(*arguments)


def close_loop(state):
    state.loop.close()


def drop_loop(state):
    state.loop = None
    gc.collect()


ENDINGS = {
    "SIGKILL": lambda state: os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": lambda state: os.kill(os.getpid(), signal.SIGTERM),
    "os._exit": lambda state: os._exit(0),
    "close": lambda state: state.tracker.close(),
    "SIGKILL in a block": lambda state: (state.tracker.lock(), os.kill(os.getpid(), signal.SIGKILL)),
}


def finish_each(tracker, keys):
    done = []
    for key in keys:
        tracker.set[key]["by"] = os.getpid()
        tracker.mark_done(key)
        done.append(key)
    return done
