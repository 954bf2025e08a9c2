"""tastypy_fast with its default settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import tastypy_fast
from benchmarks.stores.base import Batches, OrderedDict, Tasks, Visit


class TastypyDict(OrderedDict):
    """A PersistentOrderedDict."""

    def __init__(self, path: str, mode: str = "w") -> None:
        self._pod = tastypy_fast.PersistentOrderedDict(path, mode=mode)
        self.folder = os.path.dirname(self._pod.path)
        self.sync = self._pod.sync
        self.close = self._pod.close

    @classmethod
    def for_reading(cls, path: str) -> TastypyDict:
        return cls(path, mode="r")

    def __len__(self) -> int:
        return len(self._pod)

    def __iter__(self) -> Iterator[str]:
        return iter(self._pod)

    def items(self) -> Iterator[tuple[str, Any]]:
        return self._pod.iteritems()

    def get(self, key: str) -> Any:
        return self._pod[key]

    def fill(self, batches: Batches) -> None:
        pod = self._pod
        for batch in batches:
            for key, value in batch:
                pod[key] = value

    overwrite = fill

    def read(self, batches: Batches) -> int:
        pod = self._pod
        return sum(pod[key]["status"] for batch in batches for key in batch)

    def read_many(self, batches: Batches) -> int:
        pod = self._pod
        return sum(value["status"] for batch in batches for _, value in pod.get_many(batch))

    def update(self) -> None:
        pod = self._pod
        for key in pod:
            pod[key]["status"] += 1

    def delete(self, batches: Batches) -> None:
        pod = self._pod
        for batch in batches:
            for key in batch:
                del pod[key]

    def export_lines(self, folder: str) -> int:
        return self._pod.export_jsonl(f"{folder}/lines")

    def import_lines(self, folder: str) -> int:
        with tastypy_fast.PersistentOrderedDict(f"{folder}/store") as pod:
            return pod.import_jsonl(f"{folder}/lines")

    def export_files(self, folder: str) -> int:
        return self._pod.export_json(f"{folder}/files")

    def import_files(self, folder: str) -> int:
        with tastypy_fast.PersistentOrderedDict.import_json(f"{folder}/files", f"{folder}/store") as pod:
            return len(pod)


class TastypyTasks(Tasks):
    """A ProgressTracker."""

    def __init__(self, path: str) -> None:
        self._tracker = tastypy_fast.ProgressTracker(path)
        self.sync = self._tracker.sync
        self.close = self._tracker.close

    def add(self, batches: Batches) -> None:
        for batch in batches:
            self._tracker.add_many(batch)

    def loop(self) -> int:
        tracker = self._tracker
        done = 0
        for key in tracker.try_keys():
            tracker.mark_done(key)
            done += 1
        return done

    def mark_done(self, batches: Batches) -> None:
        tracker = self._tracker
        for batch in batches:
            for key in batch:
                tracker.mark_done(key)

    def todo(self) -> Iterator[str]:
        return self._tracker.todo_keys()

    def crawl(self, first: str, visit: Visit) -> int:
        tracker = self._tracker
        tracker.add(first)
        done = 0
        for key in tracker.try_keys():
            facts, found = visit(key)
            tracker.set[key].update(facts)
            tracker.add_many_if_absent(found)
            tracker.mark_done(key)
            done += 1
        return done

    def facts(self, key: str) -> Any:
        return self._tracker[key]

    def counts(self) -> tuple[int, int, int]:
        return len(self._tracker), self._tracker.num_done(), self._tracker.num_tried()
