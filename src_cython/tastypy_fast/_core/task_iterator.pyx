"""Iterating over the tasks with a certain status.

A scan of the status blocks finds the order numbers, a chunk at a time; their records are read together, and
each status is asked again before its task is handed out.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from tastypy_fast._core.cache_entry cimport Entry, pack
from tastypy_fast._core.iterators cimport KEYS, VALUES, StoreHandle, StoreIterator, damaged
from tastypy_fast._core.key_codec cimport decode_key_at
from tastypy_fast._core.record_codec cimport Record
from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.status_table cimport StatusTable
from tastypy_fast._core.status_block cimport ABORTED, FLAGS, MAX_TRIES, PRESENT, make_entry, tries_of
from tastypy_fast._core.tracker_cache cimport TrackerCache

from tastypy_fast._core.iterators import GONE
from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError

__all__ = ["TaskIterator"]

cdef enum:
    LARGEST_CHUNK = 512
    SMALL_CHUNK = 8
    # A chunk ends with the record that takes it past this.
    CHUNK_BYTES = 1 << 20
    # Up to so many records are passed over rather than sought.
    NEAR = 4

cdef long long NOWHERE = <long long>0x7fffffffffffffff


@cython.final
cdef class TaskIterator(StoreIterator):
    """The tasks with a certain status. ``attempt`` counts a try of each before it is handed out."""

    def __init__(self, StoreHandle owner not None, int kind, uint32_t wanted, uint32_t unwanted, bint limited, bint attempt):
        StoreIterator.__init__(self, owner, kind)
        self.tasks = <TrackerCache?>self.cache
        self.flags = PRESENT | wanted
        self.mask = PRESENT | wanted | unwanted
        self.max_tries = owner.max_tries if limited else 0
        self.attempt = attempt
        if attempt and not self.cache.writable:
            raise self.cache.store.refuse_write()

    cdef bint is_outdated(self) except -1:
        cdef StatusTable status = self.tasks.status
        cdef long long changes, last
        if self.tasks.store.transient:
            # Somebody else may have opened a task that was passed over. While others write a lot, chunks are small.
            if self.is_seen():
                return False
            self.limit = SMALL_CHUNK
            return True
        if self.tasks.borrowed:
            self.tasks.read_borrowed_statuses()
        changes = status.abortions if self.flags & ABORTED else status.openings
        last = status.last_aborted if self.flags & ABORTED else status.last_opened
        if changes != self.changes:
            # A task that was passed over is wanted now; it matters if it lies ahead.
            if changes - self.changes > 1 or last > self.position:
                return True
            self.changes = changes
        return StoreIterator.is_outdated(self)

    cdef bint is_seen(self) except -1:
        """Whether the store is as it was when the chunk was read."""
        self.tasks.begin_op()
        try:
            return self.snapshot_id == self.tasks.snapshot_id
        finally:
            self.tasks.end_op()

    cdef object offer(self, long long seq, object item, long long before):
        self.enter_for(seq, before)
        try:
            item = self.as_it_is_now(seq, item)
            return GONE if item is None or self.is_overtaken(seq) else self.offer_task(seq, item)
        finally:
            self.tasks.end_op()

    cdef object offer_task(self, long long seq, object item):
        """The task if it still is as wanted. The caller holds the lock."""
        cdef TrackerCache tasks = self.tasks
        cdef Entry entry = None
        cdef Record record
        cdef uint32_t status
        cdef object key, value
        entry = self.look_at(seq, item, &record)
        if entry is not None and (not entry.exists or entry.seq != seq):
            return GONE
        if entry is not None:
            tasks.read_status_from_dict(entry)
        # (0 where it was deleted since the chunk was read)
        status = tasks.status.get(seq)
        if status & self.mask != self.flags or (self.max_tries and tries_of(status) >= self.max_tries):
            return GONE
        try:
            key = decode_key_at(record.key, record.key_size)
        except PersistentOrderedDictIntegrityError as error:
            raise damaged(tasks, seq, error) from error
        if self.attempt:
            if not tasks.writable:
                raise tasks.store.refuse_write()
            if tries_of(status) >= MAX_TRIES:
                return GONE
            tasks.set_status(seq, entry, make_entry(status & FLAGS, tries_of(status) + 1))
        if self.kind == KEYS:
            if entry is None:
                self.note_passing(seq, item)
            tasks.settle(self.owner.threshold())
            value = None
        else:
            # As by keying: what the caller changes in the dict is saved.
            if entry is None:
                entry = tasks.entry_from_record(record.key[:record.key_size], seq, item)
            value = tasks.borrow(entry)
            if tasks.writable and (self.attempt or not entry.counts_as_dirty) and entry.value is not None:
                tasks.settle(self.owner.threshold())
                if tasks.entry_of(entry.key) is not entry:
                    tasks.adopt(entry)
                else:
                    tasks.count_entry(entry)
        tasks.recent_key = key
        tasks.recent_order = seq
        return key if self.kind == KEYS else value if self.kind == VALUES else (key, value)

    cdef int refill(self) except -1:
        cdef TrackerCache tasks = self.tasks
        cdef list seqs = [], records = []
        cdef Entry entry
        cdef Py_ssize_t size = 0
        cdef long long at = NOWHERE
        cdef long long seq, snapshot_id
        cdef StoreBase store = tasks.store
        cdef dict new_entries
        tasks.begin_op()
        try:
            tasks.resolve()
            # (all of them once, as the loop begins: somebody may hold ever more while it runs)
            tasks.read_all_statuses_from_dicts(self.cache_version == -1)
            self.cache_version = tasks.cache_version
            self.changes = tasks.status.abortions if self.flags & ABORTED else tasks.status.openings
            if not tasks.status.compared:
                # A task without a status would be passed over in silence.
                tasks.status.count()
            snapshot_id = tasks.snapshot_id
            if store.transient:
                self.reverts = self.count_reverts()
            chosen = tasks.status.scan(self.position, self.limit, self.flags, self.mask, self.max_tries)
            if not chosen and tasks.shelf:
                # At the end once more: what lies ahead may have become wanted since.
                tasks.read_all_statuses_from_dicts(True)
                chosen = tasks.status.scan(self.position, self.limit, self.flags, self.mask, self.max_tries)
            cursor = store.reader().cursor(store.values)
            pairs = iter(())
            new_entries = tasks.new_entries
            for place in chosen:
                seq = place
                entry = new_entries.get(place) if new_entries else None
                if entry is not None:
                    record = entry
                else:
                    if not at <= seq <= at + NEAR:
                        cursor.set_range(pack(seq))
                        pairs = cursor.iternext()
                    record = None
                    for number, raw in pairs:
                        memcpy(&at, PyBytes_AS_STRING(number), 8)
                        if at >= seq:
                            record = raw if at == seq else None
                            at += 1
                            break
                    if record is None:
                        raise tasks.damaged("?", f"the task of order number {seq} has a status and no record")
                    size += len(record)
                seqs.append(place)
                records.append(record)
                if size >= CHUNK_BYTES:
                    break
        except Exception as error:
            raise tasks.store.translated(error) from error
        finally:
            tasks.end_op()
        self.seqs = seqs
        self.records = records
        self.snapshot_id = snapshot_id
        self.at = 0
        self.limit = min(self.limit * 2, LARGEST_CHUNK)
        return 0
