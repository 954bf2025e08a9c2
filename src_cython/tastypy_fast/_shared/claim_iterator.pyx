"""The loops that claim tasks of a shared tracker and hand them out."""

cimport cython

from tastypy_fast._core.claim_record cimport Claim
from tastypy_fast._shared.claims cimport claim_next, is_still_claimed, keys_at, read_task
from tastypy_fast._core.iterators cimport KEYS, StoreHandle
from tastypy_fast._shared.handles cimport SharedPodHandle
from tastypy_fast._core.worker_slots cimport WorkerSlots
from tastypy_fast._core.store_base cimport Lock
from tastypy_fast._core.tracker_cache cimport TrackerCache
from tastypy_fast._shared.write_transaction cimport OPERATION, WriteTransaction

from collections import deque
from contextlib import suppress
from time import monotonic, time

from tastypy_fast._shared.worker import claimant_of
from tastypy_fast.exceptions import PersistentOrderedDictException, PersistentOrderedDictIntegrityError

__all__ = ["TryIterator"]

# How often, in seconds, a worker that finds enough to do looks for others that have died.
cdef double LOOK_FOR_LOST = 0.5


@cython.final
cdef class TryIterator:
    """Claims tasks, and hands them out: what ``try_keys()`` and its like return.

    ``batch`` tasks are claimed with one commit. ``close()``, the end of the loop and the garbage collector give
    back what was claimed and not handed out, with its try.
    """

    cdef SharedPodHandle tracker
    cdef object store
    cdef WriteTransaction transaction
    cdef int kind
    cdef bint allow_aborted
    cdef long long batch
    cdef long long max_tries
    # The order number of the last task that was claimed.
    cdef long long position
    # This process as a worker, and the lane in which it hands out: None before the first task and after the last one.
    cdef object claimant
    cdef object lane
    # Where that lane counts.
    cdef WorkerSlots lanes
    # As what the next task is claimed: its place is that of the next one to be claimed.
    cdef Claim claim
    # What is claimed and not handed out: order numbers and places.
    cdef object waiting
    # Of some of these the key, and the number of the transaction that claimed it, by their order numbers.
    cdef dict known
    # Order numbers of tasks that were this worker's before, and may be tried again.
    cdef list own
    cdef long long ended
    cdef bint finished

    def __cinit__(self):
        # (for what is collected before it was made to its end)
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
        self.ended = -1
        self.finished = False

    def __iter__(self):
        return self

    def __next__(self):
        while not self.finished:
            view = self.tracker.read_handle()
            if self.claimant is not self.store.claimant:
                # In a forked child, or after the store was closed: what waits here is not this worker's.
                self.waiting.clear()
                self.lane = None
            if self.waiting:
                found = self.next_waiting(<TrackerCache?>(<StoreHandle>view).open_cache())
            else:
                found = self.next_claimed(<StoreHandle>view)
            if found is not None:
                return found
        raise StopIteration

    cdef object next_waiting(self, TrackerCache tasks):
        """Hand out the next one that is claimed already. None where it is not any more, or not to be handed out yet."""
        cdef Claim claim = self.claim
        failure = found = None
        if not self.waiting:
            return None
        item = self.waiting[0]
        order, claim.place = item
        try:
            found, claimed = self.known.get(order, (None, -1))
            if found is None:
                found = read_task(tasks, order, self.kind, &claim)
            elif not is_still_claimed(tasks, order, &claim, claimed):
                found = None
        except PersistentOrderedDictIntegrityError as error:
            # (it is handed out all the same, as the error that the caller sees)
            failure = error
        # From here on no other thread comes between: nothing waits, and no Python is called.
        if not self.waiting or self.waiting[0] is not item:
            return None  # another one of those that share this loop has it
        if found is None and failure is None:
            # Whoever has ended the claim has taken its try back.
            self.waiting.popleft()
            return None
        # (whoever ends it after this line finds that the task was handed out)
        if not self.lanes.hand_out(claim.lane, claim.place):
            self.tracker.begin().perform(OPERATION, self._go_on)
            return None
        self.waiting.popleft()
        if failure is not None:
            raise failure
        return found

    def _go_on(self):
        self.lanes.go_on(self.claim.lane)

    cdef object next_claimed(self, StoreHandle view):
        """Claim the next ones, and hand out the first."""
        orders, found, claimed = self.tracker.begin().perform(OPERATION, self._claim_more)
        if orders:
            # (only now: what failed is as if it had not been; and at once: threads may share a loop)
            self.position = orders[len(orders) - 1]
            first = self.claim.place
            for order in orders[1:]:
                self.claim.place += 1
                self.waiting.append((order, self.claim.place))
            self.claim.place += 1
            if self.kind == KEYS and len(orders) > 1:
                # (not in the transaction, for which others wait; what is wrong is said where it is handed out)
                try:
                    keys = keys_at(<TrackerCache?>view.open_cache(), orders[1:])
                    self.known = {order: (key, claimed) for order, key in zip(orders[1:], keys)}
                except PersistentOrderedDictException:
                    pass
                except BaseException:
                    self.waiting.appendleft((orders[0], first))
                    raise
        return found

    def _claim_more(self):
        """Claim the next tasks: their order numbers, the first of them as it is handed out, and the number of the
        transaction if it is one of its own."""
        cdef TrackerCache tasks = <TrackerCache?>self.transaction.cache
        cdef Claim claim
        cdef list orders
        if self.waiting:
            # Another thread has claimed for this loop, while this one waited for the lock.
            return [], None, -1
        claimant = self.store.claimant
        if claimant is None:
            claimant = claimant_of(self.store)
        if self.lane is None:
            self.claimant = claimant
            self.lane = claimant.open_lane()
            self.lanes = self.transaction.lanes
            self.claim.worker, self.claim.lane, self.claim.place = claimant.number, self.lane.number, self.lane.start
            self.ended = -1
        if self.ended != claimant.ended:
            self.ended = claimant.ended
            self.own = claimant.free_ones()
        if monotonic() - claimant.looked > LOOK_FOR_LOST:
            claimant.look_for_lost()
        self.claim.since = time()
        claim = self.claim
        orders = claim_next(tasks, self.position, self.batch, self.allow_aborted, self.max_tries, self.own,
                            claimant.is_free if self.own else None, &claim)
        if not orders:
            if claimant.look_for_lost():
                # They may lie anywhere.
                self.position = -1
            else:
                self._close()
            return orders, None, -1
        self.lanes.go_on(claim.lane)
        self.lanes.hand_out(claim.lane, self.claim.place)
        number = self.transaction.snapshot.id() if self.transaction.is_single() else -1
        return orders, read_task(tasks, orders[0], self.kind, NULL), number

    def close(self):
        """End the loop: what was claimed and not handed out gets its try back."""
        if not self.finished and self.lane is not None and self.claimant is self.store.claimant:
            self.transaction.perform(OPERATION, self._close)
        self.finished = True

    def _close(self):
        if self.lane is not None:
            self.claimant.close_lane(self.lane, self.waiting, set(self.own))
            self.waiting.clear()
            self.lane = None
        self.finished = True

    def __del__(self):
        cdef Lock lock
        if self.finished or self.lane is None or self.claimant is not self.store.claimant:
            return
        lock = self.transaction.lock
        if lock.is_mine():
            # The garbage collector came into the middle of an operation.
            lock.afterwards = [*(lock.afterwards or ()), self._close_quietly]
        else:
            self._close_quietly()

    def _close_quietly(self):
        # Nobody is there to catch an error. What could not be given back is when the process ends.
        with suppress(PersistentOrderedDictException):
            self.close()
