"""Define what is needed of an engine that runs calls: an executor of concurrent.futures, or a client of Dask."""

from __future__ import annotations

import contextlib
import os
import pickle
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tastypy_fast._optional import optional_import

__all__ = ["DaskEngine", "Engine", "ThreadEngine", "dask_client", "open_engine"]

# How often the number of Dask's workers is read, in seconds.
COUNT_EVERY = 2.0
# How long a scheduler may be away before the run ends, in seconds.
MAX_AWAY = 5.0
# How long Dask may take to close a client and a cluster, in seconds.
MAX_CLOSE = 10.0

# Called in any thread when a call has ended, with its future, and its result or its error.
OnDone = Callable[[Any, Any, BaseException | None], None]


class Engine:
    """An executor of concurrent.futures, or an object with the same ``submit()``. ``is_own``: run() has made it."""

    # Whether calls run in threads of this process, so that nothing has to be pickled.
    is_in_process = False

    def __init__(self, pool: Any, is_own: bool) -> None:
        self._pool = pool
        self._is_own = is_own

    def count_workers(self) -> int | None:
        """Return the number of workers, None if it is not known."""
        count = getattr(self._pool, "_max_workers", None)
        return count if isinstance(count, int) else None

    def submit(self, on_done: OnDone, call: bytes) -> Any:
        """Submit a call, and return its future. Raises whatever the pool raises if it is broken or was shut down."""
        future = self._pool.submit(pickle.loads, call)
        self._watch(future, on_done)
        return future

    def _watch(self, future: Any, on_done: OnDone) -> None:
        def note(ended: Any) -> None:
            try:
                result = ended.result()
            except BaseException as error:
                on_done(future, None, error)
            else:
                on_done(future, result, None)

        future.add_done_callback(note)

    def why_lost(self) -> str | None:
        """Return why the engine is gone, although no future says so."""
        return None

    def has_no_workers(self) -> bool:
        """Return whether no worker is left that could finish a call."""
        return False

    def cancel_waiting(self, future: Any) -> bool:
        """Cancel a call if it is certain that it has not begun, and return whether it was cancelled."""
        return bool(future.cancel())

    def cancel(self, futures: list[Any]) -> None:
        """Cancel calls that have not begun."""
        for future in futures:
            future.cancel()

    def end(self, at_once: bool) -> None:
        """End the pool, if run() has made it. ``at_once`` kills its processes, if it has any."""
        if not self._is_own:
            return
        processes = list((getattr(self._pool, "_processes", None) or {}).values()) if at_once else []
        try:
            self._pool.shutdown(wait=not at_once, cancel_futures=True)
        except TypeError:  # loky
            self._pool.shutdown(wait=not at_once)
        for process in processes:
            with contextlib.suppress(Exception):
                process.kill()


class ThreadEngine(Engine):
    """A ThreadPoolExecutor."""

    is_in_process = True

    def submit_here(self, on_done: OnDone, function: Callable[..., Any], *arguments: Any) -> Any:
        """Submit a call that is not pickled."""
        future = self._pool.submit(function, *arguments)
        self._watch(future, on_done)
        return future


class DaskEngine(Engine):
    """A client of Dask. ``name`` is shown in Dask's dashboard."""

    def __init__(self, client: Any, is_own: bool, name: str) -> None:
        super().__init__(client, is_own)
        if client.asynchronous:
            raise TypeError("executor= takes a Client of Dask that is not asynchronous")
        self._name = name
        self._counted_at = -COUNT_EVERY
        self._count = 0
        self._away_since: float | None = None

    def count_workers(self) -> int:
        """Return the number of the workers' threads. A cluster may have none yet, and the number may change."""
        now = time.monotonic()
        if now - self._counted_at >= COUNT_EVERY:
            self._counted_at = now
            with contextlib.suppress(Exception):
                self._pool.loop.add_callback(self._read_count)
        return max(1, self._count)

    def has_no_workers(self) -> bool:
        """Return whether the cluster had no worker when the scheduler was asked last."""
        self.count_workers()
        return self._count == 0

    async def _read_count(self) -> None:
        with contextlib.suppress(Exception):
            self._count = sum((await self._pool.nthreads()).values())

    def submit(self, on_done: OnDone, call: bytes) -> Any:
        """Submit a call, and let the client's thread wait for it and fetch its result."""
        future = self._pool.submit(pickle.loads, call, key=f"{self._name}-{uuid.uuid4().hex}")
        self._pool.loop.add_callback(self._fetch, future, on_done)
        return future

    async def _fetch(self, future: Any, on_done: OnDone) -> None:
        # Not by Future.result(): a call runs again if the worker that keeps its result has died, and gather() waits.
        try:
            result, = await self._pool.gather([future], asynchronous=True)
        except BaseException as error:
            on_done(future, None, error)
        else:
            on_done(future, result, None)

    def why_lost(self) -> str | None:
        """Return why the scheduler is gone, if it is."""
        status = self._pool.status
        if status == "running":
            self._away_since = None
            return None
        if status == "closed":
            return "the client of Dask is closed"
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        return "Dask's scheduler cannot be reached" if now - self._away_since > MAX_AWAY else None

    def cancel_waiting(self, future: Any) -> bool:
        """Return False, because a client does not know whether a call is running."""
        return False

    def cancel(self, futures: list[Any]) -> None:
        """Cancel calls. Dask forgets those that are running."""
        if self._pool.status == "running":
            with contextlib.suppress(Exception):
                self._pool.cancel(futures, force=True)

    def end(self, at_once: bool) -> None:
        """Close the client, and its cluster if it has made one."""
        if self._is_own:
            with contextlib.suppress(Exception):
                self._pool.close(timeout=MAX_CLOSE)


def open_engine(pool: Any, is_own: bool, name: str) -> Engine:
    """Return the engine for an executor or a client of Dask. ``name`` is that of the function."""
    # By the name, because Dask must not be imported here.
    if any(cls.__module__.partition(".")[0] == "distributed" and cls.__name__ == "Client"
           for cls in type(pool).__mro__):
        return DaskEngine(pool, is_own, name)
    return (ThreadEngine if isinstance(pool, ThreadPoolExecutor) else Engine)(pool, is_own)


def dask_client(address: str | os.PathLike[str]) -> Any:
    """Return a client of Dask for the address of a scheduler, or for a file that the scheduler has written (*.json).

    Raises:
        ImportError: The extra ``dask`` is not installed.
        OSError: The scheduler does not answer within the time that Dask's configuration gives it, 30 s by default.
    """
    distributed = optional_import("distributed", "dask", "a run on a Dask cluster")
    text = os.fspath(address)
    return distributed.Client(scheduler_file=text) if text.endswith(".json") else distributed.Client(text)
