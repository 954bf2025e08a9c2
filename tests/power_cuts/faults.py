"""A program that goes on after a write or a flush has failed.

It runs in a forked child, because starting Python takes long. ``Faults`` is the side that asks for the runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import tastypy_fast
from tastypy_fast import PersistentOrderedDictException
from tests.power_cuts.history import digest, item_digest
from tests.power_cuts.recorder import Event, mark, read_events
from tests.power_cuts.server import Server, serve
from tests.power_cuts.workloads import BY_COUNT

__all__ = ["Faults"]

OPERATIONS = 24
# How often an operation is tried before the store is opened again, and how often that is done.
TRIES, OPENINGS = 3, 3


class Faults:
    """Runs of the program, each with one failure."""

    def __init__(self, shim: Path, folder: Path) -> None:
        self.folder = folder / "disk"
        self._log = folder / "log"
        self._server = Server("tests.power_cuts.faults", shim, folder / "unused", folder / "unused.log")

    def run(self, cls: type, level: str, fail: str | None, seed: int) -> tuple[str, list[Event]]:
        """Return why the program failed, or "", and what it recorded."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._log.unlink(missing_ok=True)
        answer = self._server.ask({
            "below": os.path.realpath(self.folder), "log": str(self._log), "class": cls.__name__, "level": level,
            "fail": fail, "seed": seed,
        })
        return answer["error"], read_events(self._log)

    def close(self) -> None:
        """End the process."""
        self._server.close()


# The process


def run_in_child(job: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            signal.alarm(30)
            begin = ctypes.CDLL(None).powercut_begin
            begin(*(job[name] and job[name].encode() for name in ("below", "log", "fail")))
            Program(job).run()
            status = 0
        except BaseException:
            os.write(writing, traceback.format_exc()[-4000:].encode())
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as file:
        text = file.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"error": text or (f"the process ended with status {status}" if status else "")}


class Program:
    """Random operations on one store, of which each is repeated until it works."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.path = os.path.join(job["below"], "store")
        self.cls = getattr(tastypy_fast, job["class"])
        self.level = job["level"]
        self.is_shared = job["class"].startswith("Shared")
        self.is_tracker = job["class"].endswith("Tracker")
        self.rng = Random(job["seed"])
        # (key, value) of each operation; no value for a deletion.
        self.operations: list[tuple[str, Any]] = []
        # The state before the first operation and after each one: key -> value.
        self.states: list[dict[str, Any]] = [{}]
        # The number of the state that sync() has promised.
        self.promised = 0
        self.errors: list[str] = []

    def run(self) -> None:
        self.open()
        for number in range(OPERATIONS):
            key = f"key {self.rng.randrange(12)}"
            value = {"n": number, "text": "x" * self.rng.choice((10, 50, 50, 9_000))}
            if self.rng.random() < 0.2:
                value = None
            self.operations.append((key, value))
            self.states.append(changed(self.states[-1], key, value))
            mark("begin", 0, number, digest(item_digest(key, self.expected(value))
                                            for key, value in self.states[-1].items()))
            self.until_it_works(lambda: self.do(self.operations[-1]))
            mark("done", 0, number)
            if number % 4 == 3:
                mark("syncbegin", 0)
                self.until_it_works(lambda: self.store.sync())
                mark("syncend", 0)
                self.promised = len(self.operations)
                assert self.found() == self.states[-1], (self.found(), self.states[-1], self.errors)
            if number % 8 == 7 and not self.is_shared:
                self.store["gone"] = {"n": 0, "text": ""}
                self.until_it_works(lambda: self.store.revert())
                assert self.found() == self.states[-1], (self.found(), self.states[-1], self.errors)
        with contextlib.suppress(PersistentOrderedDictException):
            self.store.close()
        # An error of close() says that something may be lost, but nothing that was promised is.
        self.open()
        assert self.found() == self.states[-1], (self.found(), self.states[-1], self.errors)
        self.store._check()
        with contextlib.suppress(PersistentOrderedDictException):
            self.store.close()

    def open(self) -> None:
        for _ in range(TRIES):
            try:
                self.store = self.cls(self.path, sync_at=5, durability=self.level,
                                      **({} if self.is_shared else BY_COUNT))
                return
            except PersistentOrderedDictException as error:
                self.note(error)
        raise AssertionError(f"it cannot be opened: {self.errors}")

    def note(self, error: Exception) -> None:
        assert isinstance(error, OSError), repr(error)
        self.errors.append(f"{type(error).__name__}: {error}")

    def until_it_works(self, work: Callable[[], object]) -> None:
        """Repeat an operation that fails; in the end, open the store again and do what is missing again."""
        for _opening in range(OPENINGS):
            for _try in range(TRIES):
                try:
                    work()
                    return
                except PersistentOrderedDictException as error:
                    self.note(error)
            self.open_again()
        raise AssertionError(f"it does not go on: {self.errors}")

    def open_again(self) -> None:
        with contextlib.suppress(PersistentOrderedDictException):
            self.store.close()
        self.open()
        found = self.found()
        # The last one, because an operation may have changed nothing.
        state = max((number for number, state in enumerate(self.states) if state == found), default=-1)
        assert state >= self.promised, f"state {state}, {self.promised} was promised: {found}, {self.errors}"
        for operation in self.operations[state:]:
            self.do(operation)

    def do(self, operation: tuple[str, Any]) -> None:
        key, value = operation
        if value is None:
            self.store.pop(key, None)
        else:
            self.store[key] = value

    def expected(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return a value as the store returns it."""
        return {"_done": False, "_aborted": False, "_tries": 0, **value} if self.is_tracker else value

    def found(self) -> dict[str, Any]:
        return {key: {name: value[name] for name in ("n", "text")} for key, value in self.store.items()}


def changed(state: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    state = dict(state)
    if value is None:
        state.pop(key, None)
    else:
        state[key] = value
    return state


if __name__ == "__main__":
    serve(run_in_child)
