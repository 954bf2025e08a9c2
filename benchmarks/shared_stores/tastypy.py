"""tastypy_fast's shared classes, with their default settings or another durability."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import tastypy_fast
from benchmarks.shared_stores.base import COUNTER, Blocks, Shared
from benchmarks.stores.base import Batches, Tasks
from tastypy_fast.types import Durability


class TastypyDict(Shared):
    """A SharedPersistentOrderedDict."""

    def __init__(self, path: str, durability: Durability = "process") -> None:
        self._pod = tastypy_fast.SharedPersistentOrderedDict(path, durability=durability)

    def __len__(self) -> int:
        return len(self._pod)

    def fill(self, batches: Batches) -> None:
        self._pod.update(*batches)

    def set_each(self, pairs: list[Any]) -> None:
        pod = self._pod
        for key, value in pairs:
            pod[key] = value

    def set_many(self, batches: Batches) -> None:
        pod = self._pod
        for batch in batches:
            pod.update(batch)

    def get_each(self, keys: list[str]) -> int:
        pod = self._pod
        return sum(pod[key]["status"] for key in keys)

    def increment(self, times: int) -> None:
        pod = self._pod
        for _ in range(times):
            pod.set[COUNTER] += 1

    def increment_locked(self, blocks: Blocks) -> None:
        pod = self._pod
        for block in blocks:
            with pod.locked():
                for _ in block:
                    pod.set[COUNTER] += 1

    def delete_each(self, keys: list[str]) -> None:
        pod = self._pod
        for key in keys:
            del pod[key]

    def items(self) -> Iterable[tuple[str, Any]]:
        return self._pod.iteritems()

    def get(self, key: str) -> Any:
        return self._pod[key]

    def counter(self) -> Any:
        return self._pod[COUNTER]

    def sync(self) -> None:
        self._pod.sync()

    def close(self) -> None:
        self._pod.close()


class TastypyTasks(Shared, Tasks):
    """A SharedProgressTracker."""

    def __init__(self, path: str, durability: Durability = "process") -> None:
        self._tracker = tastypy_fast.SharedProgressTracker(path, durability=durability)

    def __len__(self) -> int:
        return len(self._tracker)

    def add(self, batches: Batches) -> None:
        for batch in batches:
            self._tracker.add_many(batch)

    def mark_done_each(self, keys: list[str]) -> None:
        tracker = self._tracker
        for key in keys:
            tracker.mark_done(key)

    def mark_done_many(self, batches: Batches) -> None:
        for batch in batches:
            self._tracker.mark_done_many(batch)

    def abort_each(self, keys: list[str]) -> None:
        tracker = self._tracker
        for key in keys:
            tracker.abort(key)

    def count_done_each(self, keys: list[str]) -> int:
        tracker = self._tracker
        return sum(tracker.done(key) for key in keys)

    def claim_each(self) -> Iterator[str]:
        return iter(self._tracker.try_keys())

    def claim_done(self, _batch: int = 1) -> int:
        tracker = self._tracker
        done = 0
        for key in tracker.try_keys():
            tracker.mark_done(key)
            done += 1
        return done

    def claim_done_many(self, batch: int) -> int:
        tracker = self._tracker
        done = 0
        finished = []
        for key in tracker.try_keys(batch=batch):
            finished.append(key)
            if len(finished) == batch:
                tracker.mark_done_many(finished)
                done += len(finished)
                finished.clear()
        tracker.mark_done_many(finished)
        return done + len(finished)

    def counts(self) -> tuple[int, int, int]:
        return len(self._tracker), self._tracker.num_done(), self._tracker.num_tried()

    def num_aborted(self) -> int:
        return self._tracker.num_aborted()

    def sync(self) -> None:
        self._tracker.sync()

    def close(self) -> None:
        self._tracker.close()
