"""Task queues on disk of other packages. They have no batches: each operation is a commit of its own."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from benchmarks.stores.base import Batches, Tasks


class PersistQueueTasks(Tasks):
    """A SQLiteAckQueue of persist-queue, with its JSON serializer.

    A task without acknowledgement is returned again after the queue was reopened.
    """

    def __init__(self, path: str) -> None:
        package: Any = import_module("persistqueue")
        json = import_module("persistqueue.serializers.json")
        self._queue = package.SQLiteAckQueue(path, serializer=json)

    def add(self, batches: Batches) -> None:
        put = self._queue.put
        for batch in batches:
            for key in batch:
                put(key)

    def loop(self, _batch: int = 1) -> int:
        queue = self._queue
        done = 0
        while queue.size:
            task = queue.get(block=False, raw=True)
            queue.ack(id=task["pqid"])
            done += 1
        return done

    def counts(self) -> tuple[int, int, None]:
        queue = self._queue
        done = queue.acked_count()
        return queue.size + queue.unack_count() + done, done, None

    def sync(self) -> None:
        """Do nothing, because every operation was committed."""

    def close(self) -> None:
        self._queue.close()


class LitequeueTasks(Tasks):
    """A LiteQueue. It chooses fast SQLite settings itself."""

    def __init__(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)
        self._path = path
        self._queue: Any = import_module("litequeue").LiteQueue(os.path.join(path, "queue.sqlite"), timeout=60)

    def __reduce__(self) -> Any:
        return type(self), (self._path,)

    def __len__(self) -> int:
        return int(self._queue.qsize())

    def add(self, batches: Batches) -> None:
        put = self._queue.put
        for batch in batches:
            for key in batch:
                put(key)

    def loop(self, _batch: int = 1) -> int:
        queue = self._queue
        done = 0
        while (task := queue.pop()) is not None:
            queue.done(task.message_id)
            done += 1
        return done

    def verified_counts(self) -> tuple[int, int, None]:
        total, done = self._queue.conn.execute("SELECT count(*), total(status = 2) FROM Queue").fetchone()
        return total, int(done), None  # In its table, 2 is DONE.

    def sync(self) -> None:
        """Do nothing, because every operation was committed."""

    def close(self) -> None:
        self._queue.close()


class HueyTasks(Tasks):
    """A SqliteHuey that stores no results and never flushes.

    It deletes tasks that are done. A task whose worker died is lost.
    """

    def __init__(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)
        self._path = path
        self._huey: Any = import_module("huey").SqliteHuey(
            filename=os.path.join(path, "huey.sqlite"), fsync=False, results=False, timeout=60
        )

        def work(_key: str) -> None:
            pass

        self._enqueue = self._huey.task()(work)

    def __reduce__(self) -> Any:
        return type(self), (self._path,)

    def __len__(self) -> int:
        return int(self._huey.pending_count())

    def add(self, batches: Batches) -> None:
        enqueue = self._enqueue
        for batch in batches:
            for key in batch:
                enqueue(key)

    def loop(self, _batch: int = 1) -> int:
        huey = self._huey
        done = 0
        while (task := huey.dequeue()) is not None:
            huey.execute(task)
            done += 1
        return done

    def remaining(self) -> int:
        return len(self)

    def verified_counts(self) -> tuple[None, None, None]:
        return None, None, None

    def sync(self) -> None:
        """Do nothing, because every operation was committed."""

    def close(self) -> None:
        self._huey.storage.close()
