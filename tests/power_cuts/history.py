"""What programs did to a store, as their marks say it, and what must be left after a power cut.

A workload marks, in this order, for its worker W and its operation N:

    begin W N DIGEST    the worker begins operation N; DIGEST is what is its own after it
    done W N            the operation has returned
    auto W N            a private store has synced by itself; operation N is the last one that it has saved
    syncbegin W         the worker calls sync()
    syncend W           sync() has returned
    pooldone KEY        the task KEY, for which all workers compete, is marked done
    start               the store is complete; the workers begin
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["History", "Verdict", "digest", "item_digest"]


def item_digest(key: object, value: object) -> bytes:
    """Return what stands for one item in ``digest()``."""
    return hashlib.blake2b(json.dumps([key, value], sort_keys=True).encode(), digest_size=8).digest()


def digest(items: Iterable[bytes]) -> str:
    """Return what stands for the content of a store, in order."""
    return hashlib.blake2b(b"".join(items), digest_size=12).hexdigest()


EMPTY = digest(())


class Verdict(NamedTuple):
    """What became of a store: "sound", "damaged" or "lost" (what was promised)."""

    kind: str
    detail: str = ""


SOUND = Verdict("sound")


class History:
    """The marks of a recording up to one moment."""

    def __init__(self, level: str) -> None:
        self._level = level
        # Of each worker: digest -> the operations after which it was the state.
        self._states: dict[int, dict[str, list[int]]] = {}
        self._begun: dict[int, int] = {}
        self._done: dict[int, int] = {}
        self._pool_done: set[int] = set()
        # What each running sync() will promise.
        self._promising: dict[int, tuple[dict[int, int], set[int]]] = {}
        self._promised: dict[int, int] = {}
        self._promised_pool: set[int] = set()
        # The operations that automatic and explicit syncs of a private store have saved.
        self._synced = [-1, -1]
        self.has_started = False

    def add(self, words: list[str]) -> None:
        """Take in one mark."""
        what, *rest = words
        if what == "begin":
            worker, number = int(rest[0]), int(rest[1])
            self._states.setdefault(worker, {EMPTY: [-1]}).setdefault(rest[2], []).append(number)
            self._begun[worker] = number
        elif what == "done":
            self._done[int(rest[0])] = int(rest[1])
        elif what == "auto":
            self._synced.append(int(rest[1]))
        elif what == "syncbegin":
            self._promising[int(rest[0])] = dict(self._done), set(self._pool_done)
        elif what == "syncend":
            done, pool = self._promising.pop(int(rest[0]))
            for worker, number in done.items():
                self._promised[worker] = max(number, self._promised.get(worker, -1))
            self._promised_pool |= pool
            self._synced.append(done.get(int(rest[0]), -1))
        elif what == "pooldone":
            self._pool_done.add(int(rest[0]))
        elif what == "start":
            self.has_started = True

    def judge(self, found: dict[str, Any], kind: str, is_killed: bool = False) -> Verdict:
        """Compare what the check of a disk has found with what was done and promised.

        ``is_killed`` says that the power did not fail, but all processes were killed: every commit is there.
        """
        level = "full" if is_killed else self._level
        if "error" in found:
            return Verdict("damaged", f"{found['stage']}: {found['error']}")
        if "reader_error" in found and not self._may_refuse_reader(found["reader_error"]):
            return Verdict("damaged", f"reader: {found['reader_error']}")
        judge = self._judge_shared if kind == "shared" else self._judge_private
        for contents in (found.get("reader_contents"), found["contents"]):
            if contents is not None:
                verdict = judge(contents, level)
                if verdict is not SOUND:
                    return verdict
        return SOUND

    def _may_refuse_reader(self, error: str) -> bool:
        """Whether a reader that comes first may raise this error."""
        name = error.partition(":")[0]
        if not self._promised:
            return name == "StoreNotFoundError"
        # A reader may not be allowed to put the flush point back. It says so.
        return self._level == "process" and name in ("StorageError", "StoreAccessError", "ReadOnlyStoreError")

    def _last_state(self, worker: int, contents: dict[str, Any]) -> int | None:
        """Return the last operation after which a worker's part was as it was found, or None."""
        states = self._states.get(worker, {EMPTY: [-1]})
        return max(states.get(contents[str(worker)], ()), default=None)

    def _judge_private(self, contents: dict[str, Any], level: str) -> Verdict:
        last = self._last_state(0, contents)
        if last is None:
            return Verdict("damaged", "the content is that of no moment")
        promised = self._promised.get(0, -1)
        if level in ("full", "process"):
            promised = max(promised, self._synced[-1])
        elif level == "normal":  # the last commit may be undone
            promised = max(promised, self._synced[-2])
        if last < promised:
            return Verdict("lost", f"as after operation {last}, {promised} was saved")
        return SOUND

    def _judge_shared(self, contents: dict[str, Any], level: str) -> Verdict:
        undone = 0
        for worker in (0, 1):
            last = self._last_state(worker, contents)
            if last is None:
                return Verdict("damaged", f"what worker {worker} wrote is that of no moment")
            promised = self._promised.get(worker, -1)
            if last < promised:
                return Verdict("lost", f"worker {worker}: as after operation {last}, {promised} was saved")
            undone += max(0, self._done.get(worker, -1) - last)
        if undone > {"full": 0, "normal": 1}.get(level, undone):
            return Verdict("lost", f"{undone} operations, at level {level}")
        return self._judge_pool(contents["pool"])

    def _judge_pool(self, pool: dict[str, Any]) -> Verdict:
        if pool["odd"]:
            return Verdict("damaged", f"tasks {pool['odd'][:5]} are done without their data")
        if self.has_started and pool["count"] != POOL:
            return Verdict("lost", f"{POOL - pool['count']} tasks of the pool")
        missing = self._promised_pool - set(pool["done"])
        return Verdict("lost", f"tasks {sorted(missing)[:5]} were done") if missing else SOUND


# How many tasks the workers of a shared store compete for.
POOL = 200
