"""Iterate over the tasks of a shared tracker, and claim each task before it is yielded."""

cimport cython

from tastypy_fast._core.claim_record cimport Claim
from tastypy_fast._core.iterators cimport KEYS, StoreHandle
from tastypy_fast._core.task_cache cimport TaskCache
from tastypy_fast._core.worker_slots cimport WorkerSlots
from tastypy_fast._shared.claims cimport claim_next, close_from_finalizer, is_still_claimed, keys_at, read_task
from tastypy_fast._shared.handles cimport SharedPodHandle
from tastypy_fast._shared.write_transaction cimport OPERATION, WriteTransaction

from collections import deque
from time import monotonic, time

from tastypy_fast.exceptions import PersistentOrderedDictException, PersistentOrderedDictIntegrityError

__all__ = ["ClaimIterator"]

# The interval, in seconds, at which a worker that always finds tasks checks for dead workers.
cdef double RECOVER_EVERY = 0.5


@cython.final
cdef class ClaimIterator:
    """Claim tasks and yield them. ``try_keys()``, ``try_values()`` and ``try_items()`` return this iterator.

    ``batch`` tasks are claimed with one commit. ``close()``, the end of the iteration and the garbage collector release
    the tasks that were claimed and not yielded, and subtract their tries. Threads may share an iterator.
    """

    # None after the end, as ``store`` and ``transaction`` are.
    cdef SharedPodHandle tracker
    # The SharedStore.
    cdef object store
    cdef WriteTransaction transaction
    cdef int kind
    cdef bint allow_aborted
    cdef long long batch
    cdef long long max_tries
    # The sequence number of the last task that was claimed.
    cdef long long position
    # This process's worker and the slot of this iterator: None before the first task and after the last one.
    cdef object worker
    cdef object slot
    cdef WorkerSlots worker_slots
    # The claim of the next task to be claimed.
    cdef Claim claim
    # The claimed tasks that were not yielded yet: pairs of sequence number and position.
    cdef object waiting
    # For some of the waiting tasks, by sequence number: the key, and the id of the transaction that claimed the task.
    cdef dict known
    # The sequence numbers of tasks that this worker had claimed before, and may claim again.
    cdef list own
    # How many iterators of the worker had ended when ``own`` was read.
    cdef long long ended_iterators
    # The tasks that were waiting when the end began, whose claims are to be released: None before.
    cdef list unyielded
    cdef bint finished
    # How many threads are in a step.
    cdef int running

    def __cinit__(self):
        # An object that is collected before __init__() has ended has nothing to release.
        self.finished = True

    def __init__(self, SharedPodHandle tracker not None, store not None, int kind, bint allow_aborted,
                 long long max_tries, long long batch):
        self.tracker = tracker
        self.store = store
        self.transaction = store.transaction
        self.kind = kind
        self.allow_aborted = allow_aborted
        self.max_tries = max_tries
        self.batch = batch
        self.position = -1
        self.waiting = deque()
        self.known = {}
        self.own = []
        self.ended_iterators = -1
        self.finished = False

    def __iter__(self):
        return self

    def __next__(self):
        if self.finished:
            raise StopIteration
        self.running += 1
        try:
            return self.step()
        finally:
            self.running -= 1
            if self.finished:
                self.release()

    cdef object step(self):
        """Return what to yield next. Raises StopIteration at the end."""
        while not self.finished:
            view = self.tracker.read_handle()
            if self.worker is not self.store.worker:
                # The process was forked, or the store was closed. Yielding these tasks would be wrong, because their
                # claims belong to another worker.
                self.waiting.clear()
                self.slot = self.unyielded = None
            if self.waiting:
                found = self.next_waiting(<TaskCache?>(<StoreHandle>view).open_cache())
            else:
                found = self.next_claimed(<StoreHandle>view)
            if found is not None:
                return found
        raise StopIteration

    cdef object next_waiting(self, TaskCache tasks):
        """Return the first waiting task, or None if its claim has ended or it must not be yielded yet."""
        cdef Claim claim = self.claim
        failure = found = None
        if not self.waiting:
            return None
        item = self.waiting[0]
        seq, claim.position = item
        try:
            found, claimed = self.known.get(seq, (None, -1))
            if found is None:
                found = read_task(tasks, seq, self.kind, &claim)
            elif not is_still_claimed(tasks, seq, &claim, claimed):
                found = None
        except PersistentOrderedDictIntegrityError as error:
            # Count the task as yielded, because the caller gets this error for it.
            failure = error
        # From here to the end no other thread runs, because nothing waits and no Python code is called.
        if not self.waiting or self.waiting[0] is not item:
            return None  # another thread has yielded it from this iterator
        if found is None and failure is None:
            # The process that ended the claim has subtracted its try.
            self.waiting.popleft()
            return None
        # A process that ends the claim after this line finds that the task was yielded, and keeps its try.
        if not self.worker_slots.mark_yielded(claim.slot, claim.position):
            self.tracker.begin().perform(OPERATION, self._clear_stop)
            return None
        self.waiting.popleft()
        if failure is not None:
            raise failure
        return found

    def _clear_stop(self):
        self.worker_slots.clear_stop(self.claim.slot)

    cdef object next_claimed(self, StoreHandle view):
        """Claim the next tasks, and return the first."""
        cdef list seqs, claimed = []
        try:
            found, txn_id = self.tracker.begin().perform(OPERATION, self._claim_more, claimed)
        except BaseException:
            # A signal handler may have raised after the commit. Then these tasks are claimed, and are yielded next. If
            # nothing was committed, next_waiting() does not find their claims, and drops them.
            self.waiting.extend(claimed)
            raise
        if not claimed:
            if self.unyielded is not None:
                self.end()
            return None
        # Set the position after the transaction, because a failed one has claimed nothing. Set it before any Python
        # code runs, because threads may share this iterator.
        self.position = claimed[len(claimed) - 1][0]
        if len(claimed) == 1:
            return found
        self.waiting.extend(claimed[1:])
        if self.kind == KEYS:
            # Read the keys outside the transaction, because other processes wait for it. An error is raised later,
            # when its task is yielded.
            seqs = [seq for seq, _ in claimed[1:]]
            try:
                keys = keys_at(<TaskCache?>view.open_cache(), seqs)
                self.known = {seq: (key, txn_id) for seq, key in zip(seqs, keys)}
            except PersistentOrderedDictException:
                pass
            except BaseException:
                self.waiting.appendleft(claimed[0])
                raise
        return found

    def _claim_more(self, list claimed not None):
        """Claim the next tasks, and put their sequence numbers and positions into ``claimed``.

        Returns what to yield for the first, and the id of the transaction if it is one operation, else -1.
        """
        cdef TaskCache tasks = <TaskCache?>self.transaction.cache
        cdef Claim claim
        cdef list seqs
        cdef long long first
        # The list is not empty if the map was full and this is the second call.
        claimed.clear()
        if self.unyielded is not None:
            # Another thread has begun the end, or an interrupt came in the middle of it.
            self._close()
            return None, -1
        if self.waiting:
            # Another thread has claimed tasks for this iterator while this thread waited for the lock.
            return None, -1
        worker = self.store.worker
        if worker is None:
            worker = self.store.open_worker()
        if self.slot is None:
            self.worker = worker
            self.slot = worker.open_slot()
            self.worker_slots = self.transaction.worker_slots
            self.claim.worker, self.claim.slot, self.claim.position = worker.number, self.slot.number, self.slot.start
            self.ended_iterators = -1
        if self.ended_iterators != worker.ended_iterators:
            self.ended_iterators = worker.ended_iterators
            self.own = worker.free_tasks()
        if monotonic() - worker.recovered_at > RECOVER_EVERY:
            worker.recover_claims()
        self.claim.since = time()
        claim = self.claim
        seqs = claim_next(tasks, self.position, self.batch, self.allow_aborted, self.max_tries, self.own,
                          worker.is_free if self.own else None, &claim, 1, None)
        if not seqs:
            if worker.recover_claims():
                # Begin again, because the recovered tasks may lie before the position.
                self.position = -1
            else:
                self._close()
            return None, -1
        first = self.claim.position
        for seq in seqs:
            # Use a position only once, even if the transaction fails, because two claims must never have the same one.
            claimed.append((seq, self.claim.position))
            self.claim.position += 1
        self.worker_slots.clear_stop(claim.slot)
        self.worker_slots.mark_yielded(claim.slot, first)
        number = self.transaction.snapshot.id() if self.transaction.is_single() else -1
        return read_task(tasks, seqs[0], self.kind, NULL), number

    @property
    def counts_tries(self):
        """Whether it counts a try of each task that it yields."""
        return True

    def close(self):
        """End the iteration, release the claimed tasks that were not yielded, and subtract their tries."""
        if not self.finished and self.slot is not None and self.worker is self.store.worker:
            self.transaction.perform(OPERATION, self._close)
            self.end()
        self.finished = True
        self.release()

    def _close(self):
        """Release the claims. This may run again if the map was full, or after an interrupt."""
        if self.unyielded is None:
            # No thread of this iterator yields them any more.
            self.unyielded = list(self.waiting)
            self.waiting.clear()
        if self.slot is not None:
            self.worker.close_slot(self.slot, self.unyielded, set(self.own))

    cdef int end(self) except -1:
        """End the iteration after the claims were released."""
        if self.slot is not None:
            self.worker.end_slot(self.slot)
        self.slot = None
        self.finished = True
        return 0

    cdef int release(self) except -1:
        """Let go of the store after the end, as the iterator of a dict does, unless another thread is in a step."""
        if self.running == 0:
            # Clear the fields first, because the end of the last reference to a store runs its finalizers.
            _ended = self.tracker, self.store, self.transaction, self.worker, self.slot, self.worker_slots
            self.tracker = None
            self.transaction = None
            self.worker_slots = None
            self.store = self.worker = self.slot = None
        return 0

    def __del__(self):
        if self.finished or self.slot is None or self.worker is not self.store.worker:
            return
        close_from_finalizer(self.transaction.lock, self.close)
