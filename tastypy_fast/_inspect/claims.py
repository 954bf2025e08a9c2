"""Read which tasks processes have taken: the claims of a shared tracker, and what a private one is trying."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, NamedTuple

from tastypy_fast._core.claim_record import ClaimRecord
from tastypy_fast._inspect.lock_holders import how_is_open
from tastypy_fast._store.live_workers import WorkerFacts, counts_as_tried, read_worker_files
from tastypy_fast._store.running_file import read_running
from tastypy_fast._store.store import Store
from tastypy_fast._store.stored_claims import read_stored_claims
from tastypy_fast.types import ClaimState

__all__ = ["ActiveClaim", "ClaimReader", "Claims", "one_snapshot"]


class ActiveClaim(NamedTuple):
    """A claim of a living worker: the task's sequence number, the worker's process and host, and when the claim began.

    ``state`` is "running", "unfinished" or "waiting" (see ``WorkerFacts.state_of()``).
    """

    seq: int
    process: int
    host: str
    since: datetime
    state: ClaimState

    @property
    def is_running(self) -> bool:
        """Return whether the worker works on the task, or will without claiming it again."""
        return self.state != "unfinished"


class Claims(NamedTuple):
    """Which tasks processes have taken, in one snapshot.

    ``active`` are the claims of living workers, in the order of their tasks. ``never_yielded`` maps the sequence number
    of a task to its tries, for claims of dead workers. Such a claim has counted a try that never began. The next worker
    that recovers the claims of dead workers subtracts this try, so the task must not count as tried because of it.
    ``tried_keys`` are the keys in the index of the tasks that a living process tries in a private tracker.
    """

    active: list[ActiveClaim]
    never_yielded: dict[int, int]
    tried_keys: frozenset[bytes] = frozenset()

    def running(self) -> set[int]:
        """Return the sequence numbers of the claimed tasks that are running."""
        return {claim.seq for claim in self.active if claim.is_running}


class ClaimReader:
    """Read the claims of a store in a snapshot.

    Create it before the snapshot begins. The worker files are read then, because they change at once, and the snapshot
    does not: a task that ends after the snapshot would otherwise count as left unfinished.
    """

    def __init__(self, store: Store) -> None:
        shared: Any = store
        worker = shared.worker if store.options.shared else None
        self._path = store.path
        self._own = worker.number if worker else 0
        # A private store that is open to write has no living worker.
        self._workers = {} if store.writable else _read_workers(self._path, self._own)
        self._tried_keys = frozenset(_read_tried(store))

    def read(self, txn: Any, store: Any, may_ignore: Callable[[ClaimRecord], bool] | None = None) -> Claims:
        """Read the claims in a snapshot of ``store``, a store or a write transaction.

        Claims of this process that ``may_ignore()`` selects are left out.
        """
        active, never_yielded = [], {}
        for seq, claim, worker in self._with_workers(_stored_claims(txn, store)):
            if not worker.is_alive:
                if not counts_as_tried(claim, worker):
                    never_yielded[seq] = claim.tries
            elif not (may_ignore and claim.worker == self._own and may_ignore(claim)):
                since = datetime.fromtimestamp(claim.since, timezone.utc)
                active.append(ActiveClaim(seq, worker.process, worker.host, since, worker.state_of(claim)))
        return Claims(active, never_yielded, self._tried_keys)

    def _with_workers(
        self, claims: Iterable[tuple[int, ClaimRecord]]
    ) -> Iterator[tuple[int, ClaimRecord, WorkerFacts]]:
        """Yield each claim with its worker. Skips claims of workers whose file is missing."""
        later: dict[int, WorkerFacts] | None = None
        for seq, claim in claims:
            worker = self._workers.get(claim.worker)
            if worker is None:
                # The worker may have begun after the files were read.
                if later is None:
                    later = _read_workers(self._path, self._own)
                worker = later.get(claim.worker)
            if worker is not None:
                yield seq, claim, worker


def _read_workers(path: str, own: int) -> dict[int, WorkerFacts]:
    return {worker.number: worker for worker in read_worker_files(path, own)}


def _read_tried(store: Store) -> Iterator[bytes]:
    """Return the keys in the index of the tasks that a living process tries in a private tracker.

    The file of a killed process stays until the next one opens the store to write.
    """
    running = [] if store.options.shared else read_running(store.path)
    is_alive = bool(running) and (store.writable or how_is_open(store.path) == "private")
    return (key for key, _ in running if is_alive)


def _stored_claims(txn: Any, store: Any) -> Iterable[tuple[int, ClaimRecord]]:
    if store.claims is None and store.writable:
        # A private store has released all claims when it was opened.
        return []
    return read_stored_claims(store.db, txn)


@contextmanager
def one_snapshot(tracker: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the store that a tracker reads, or the open write transaction of a shared one, and a snapshot of it.

    This is one operation. All operations of this thread inside it use the same snapshot. On a private tracker that
    writes, the snapshot lacks what is not synced yet.
    """
    handle, opened = tracker._read_handle(), tracker._store
    with handle._one_step:
        cache = handle._open_cache
        if opened.writable:
            with opened.begin_reading() as txn:
                yield opened, txn
            return
        if opened.options.shared:
            cache.sync(False)  # flush into the transaction if one is open
        yield cache.store, cache.store.snapshot
