"""Take tasks of a shared tracker in batches, for a program that hands them to workers, and claim each of them.

The claims of a queue have a slot of their own, above those of the iterators (see ``worker_slots``). Its tasks are
running from the commit of their claims on until they are finished or the queue is closed, so neither this queue nor an
iterator of the same process gets them again meanwhile. If the program is killed, their tries stay counted; but not if
the tasks run in other processes, because then none of them has killed it, and many may not have begun.
"""

cimport cython
from tastypy_fast._core.claim_record cimport Claim
from tastypy_fast._core.iterators cimport StoreHandle
from tastypy_fast._core.key_codec cimport encode_key
from tastypy_fast._core.status_block cimport ERROR, tries_of
from tastypy_fast._core.task_cache cimport TaskCache
from tastypy_fast._shared.claims cimport (
    BLOCKED,
    claim_keys,
    claim_next,
    close_from_finalizer,
    keys_at,
    still_claimed,
)
from tastypy_fast._shared.handles cimport SharedPodHandle
from tastypy_fast._shared.write_transaction cimport OPERATION, WriteTransaction

from time import monotonic, time

from tastypy_fast._core.locks import this_thread
from tastypy_fast.exceptions import CalledClosedTrackerError

__all__ = ["ClaimQueue", "NoTaskSlot"]

# The interval, in seconds, at which a queue that finds tasks checks for dead workers.
cdef double RECOVER_EVERY = 0.5


@cython.final
cdef class ClaimQueue:
    """The tasks of a shared tracker that are to be done, each claimed for this process. One thread uses it."""

    cdef SharedPodHandle tracker
    # The SharedStore.
    cdef object store
    cdef WriteTransaction transaction
    cdef bint allow_aborted
    cdef long long max_tries
    # Whether the tasks run in other processes, so that none of them has killed this one.
    cdef bint remote
    # The sequence number of the last task that was taken.
    cdef long long position
    # This process's worker: None before the first claim. The claim of all tasks of this queue.
    cdef object worker
    cdef Claim record
    # The sequence numbers of tasks that this worker had claimed before, and may claim again.
    cdef list own
    # How many iterators of the worker had ended when ``own`` was read.
    cdef long long ended_iterators
    # The tasks that were claimed and not returned: sequence numbers and statuses. Whether the commit may have failed.
    cdef list waiting
    cdef bint is_uncertain
    # Whether claims of dead workers were released, whose tasks may lie before the position.
    cdef bint has_recovered
    cdef bint closed

    def __cinit__(self):
        # An object that is collected before __init__() has ended has nothing to release.
        self.closed = True

    def __init__(self, SharedPodHandle tracker not None, store not None, bint allow_aborted, long long max_tries,
                 bint remote=False):
        self.tracker = tracker
        self.store = store
        self.transaction = store.transaction
        self.allow_aborted = allow_aborted
        self.max_tries = max_tries
        self.remote = remote
        self.position = -1
        self.own = []
        self.waiting = []
        tracker.read_handle()  # raises for a closed store
        self.closed = False

    cdef int check_open(self) except -1:
        """Raise if the queue or the store was closed. Forget the claims of another process or of a closed store."""
        self.tracker.read_handle()
        if self.closed:
            raise CalledClosedTrackerError("this queue of tasks was closed; open another one")
        if self.worker is not None and self.worker is not self.store.worker:
            self.worker = None
            self.waiting = []
        return 0

    def take(self, long long limit):
        """Return up to ``limit`` tasks after the position as tuples (key, number of the try, whether it has an error).

        They are claimed and their try is counted, in one transaction. A later call also returns tasks that were added
        since an empty answer. If there is none, the claims of dead workers are released, and the queue begins again at
        the first task.
        """
        cdef list claimed
        cdef TaskCache tasks
        self.check_open()
        if limit <= 0:
            return []
        if self.waiting and self.is_uncertain:
            tasks = <TaskCache?>(<StoreHandle>self.tracker.read_handle()).open_cache()
            self.waiting = still_claimed(tasks, self.waiting, &self.record)
        if not self.waiting:
            # Until the call has returned it is not known whether these tasks are claimed.
            self.is_uncertain = True
            self.tracker.begin().perform(OPERATION, self._take, limit)
            self.is_uncertain = False
            if self.waiting:
                self.position = self.waiting[len(self.waiting) - 1][0]
        claimed = self.waiting
        if not claimed:
            return []
        # Read the keys outside the transaction, because other processes wait for it.
        tasks = <TaskCache?>(<StoreHandle>self.tracker.read_handle()).open_cache()
        keys = keys_at(tasks, [seq for seq, _ in claimed])
        found = [(key, tries_of(entry), (entry & ERROR) != 0) for key, (_, entry) in zip(keys, claimed)
                 if key is not None]
        self.waiting = []
        return found

    def _begin_claiming(self):
        """Return the worker, with a slot for this queue. The caller is in the transaction."""
        worker = self.store.worker
        if worker is None:
            worker = self.store.open_worker()
        if self.worker is None:
            self.worker = worker
            self.record.worker = worker.number
            self.record.slot = worker.open_queue(self.remote)
            self.record.position = this_thread()
            self.ended_iterators = -1
        self.record.since = time()
        return worker

    def _take(self, long long limit):
        """Claim the next tasks, and put them into ``waiting``. This may run again if the map was full."""
        cdef TaskCache tasks = <TaskCache?>self.transaction.cache
        cdef list seqs
        cdef list entries = []
        self.waiting = []
        worker = self._begin_claiming()
        if self.ended_iterators != worker.ended_iterators:
            self.ended_iterators = worker.ended_iterators
            self.own = worker.free_tasks()
        if monotonic() - worker.recovered_at > RECOVER_EVERY:
            self.has_recovered = worker.recover_claims() or self.has_recovered
        is_free = worker.is_free if self.own else None
        seqs = claim_next(tasks, self.position, limit, self.allow_aborted, self.max_tries, self.own, is_free,
                          &self.record, 0, entries)
        if not seqs and (worker.recover_claims() or self.has_recovered):
            # Begin again, because the recovered tasks may lie before the position.
            self.has_recovered = False
            seqs = claim_next(tasks, -1, limit, self.allow_aborted, self.max_tries, self.own, is_free,
                              &self.record, 0, entries)
        self.waiting = list(zip(seqs, entries))

    def claim(self, keys):
        """Claim each of these tasks that is to be done, and count a try of it, in one transaction. The position stays.

        A task that this queue has claimed already may be claimed again: it is tried again. Returns a list with the
        number of the try of each key, 0 if the task is not to be tried, is claimed by another worker or iterator, or
        the key was there before, and -1 if it does not exist.
        """
        cdef list encoded
        self.check_open()
        encoded = [encode_key(key) for key in keys]
        return self.tracker.begin().perform(OPERATION, self._claim, encoded) if encoded else []

    def _claim(self, list encoded not None):
        cdef TaskCache tasks = <TaskCache?>self.transaction.cache
        cdef list found = [BLOCKED] * len(encoded)
        worker = self._begin_claiming()
        claim_keys(tasks, encoded, found, self.allow_aborted, self.max_tries, worker.is_free, &self.record)
        if BLOCKED in found and monotonic() - worker.recovered_at > RECOVER_EVERY and worker.recover_claims():
            self.has_recovered = True
            claim_keys(tasks, encoded, found, self.allow_aborted, self.max_tries, worker.is_free, &self.record)
        return [0 if tries == BLOCKED else tries for tries in found]

    def restart(self):
        """Begin again at the first task. Tasks that are running in this queue are not returned."""
        self.position = -1

    def close(self):
        """End the queue. Its unfinished tasks stay claimed for the next queue or iterator of this thread.

        Tasks that were claimed and never returned are released, and their tries subtracted. If that fails, because the
        disk is full for example, these stay claimed, too.
        """
        if not self.closed and self.worker is not None and self.worker is self.store.worker:
            try:
                self.transaction.perform(OPERATION, self._close)
            finally:
                self.closed = True
                self.worker.abandon_queue(self.record.slot)
        self.closed = True

    def _close(self):
        """Release the claims. This may run again if the map was full."""
        waiting = [seq for seq, _ in self.waiting]
        self.worker.close_queue(self.record.slot, waiting, set(self.own))

    def __del__(self):
        if self.closed or self.worker is None or self.worker is not self.store.worker:
            return
        close_from_finalizer(self.transaction.lock, self.close)


@cython.final
cdef class NoTaskSlot:
    """Note nothing, because the claim of a task says that it is running."""

    def begin(self, key, tries):
        """Do nothing."""

    def end(self):
        """Do nothing."""
