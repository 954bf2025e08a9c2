"""Run chunks of tasks in a worker of another engine: of concurrent.futures, loky, Dask, and so on.

Like ``worker`` and ``supervised_child``, this module imports the standard library only, and is sent by value. The
worker needs cloudpickle, and neither this package nor the modules of the program. It keeps what it was sent, by its
digest.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from tastypy_fast.pipeline.supervised_child import Results, run_in_child, serve
from tastypy_fast.pipeline.worker import Outcome, TaskFunction, encode_item, run_chunk

__all__ = ["RemoteSetup", "enter"]


def enter(digest: str, payload: bytes | None, tasks: list[tuple[Any, int, Any]]) -> bytes | None:
    """Run a chunk in this worker. ``payload`` is the pickle of a RemoteSetup, and ``digest`` its name.

    Returns the pickle of its Results, because Dask sends each item of a list for itself. Returns None if the payload
    was left out, and this worker does not have it.
    """
    # Sent by value for itself, so it has no globals.
    import pickle
    import sys

    setups = vars(sys).setdefault("_tastypy_fast_setups", {})
    kept = setups.get(digest)
    if kept is None:
        if payload is None:
            return None
        while len(setups) >= 8:
            setups.pop(next(iter(setups)), None)
        kept = setups.setdefault(digest, (pickle.loads(payload), payload))
    setup, payload = kept
    return pickle.dumps(setup.run(digest, payload, tasks), 5)


class RemoteSetup(NamedTuple):
    """What a worker needs to run the tasks of a run."""

    function: TaskFunction
    timeout: float | None

    def run(self, digest: str, payload: bytes, tasks: list[tuple[Any, int, Any]]) -> Results:
        """Run a chunk, in a child if there is a time limit."""
        if self.timeout is not None:
            return run_in_child(digest, payload, tasks, self.timeout)
        began = last = time.monotonic()

        def note(index: int, now: float) -> None:
            nonlocal last
            last = now

        outcomes = run_chunk(self.call, tasks, 0, note)
        now = time.monotonic()
        return now - began, now - last, [encode_item(outcome) for outcome in outcomes]

    def call(self, task: tuple[Any, int, Any], slot: int) -> Outcome:
        """Run one task. Ctrl-C reaches the processes of most engines, and must not end the whole chunk."""
        began = time.monotonic()
        try:
            return self.function(task, slot)
        except KeyboardInterrupt as error:
            return self.function.outcome_of_error(error, began)

    def serve(self, file: Any) -> None:
        """Run chunks in a supervised child."""
        serve(self.call, file)
