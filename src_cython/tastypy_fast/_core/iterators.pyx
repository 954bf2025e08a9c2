"""Iterate over a store while it changes: over all keys, or over the tasks with a certain status.

An iterator remembers the seq that it yielded last, and reads a chunk of the records after it. It checks each key in the
cache again before it yields the key. When a sync or a revert has changed the disk, ``cache_version`` of the cache has
increased. Then the iterator drops the rest of its chunk and seeks again. It keeps no read transaction open between two
steps.
"""

from bisect import bisect_left, bisect_right
from weakref import ref

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from tastypy_fast._core.cache_entry cimport Entry, YieldedCopy, pack
from tastypy_fast._core.deleted_runs cimport DeletedStretch
from tastypy_fast._core.key_codec cimport decode_key_at
from tastypy_fast._core.record_codec cimport Record, parse_record, record_payload
from tastypy_fast._core.status_block cimport ABORTED, DONE, FLAGS, MAX_TRIES, PRESENT, make_entry, tries_of
from tastypy_fast._core.status_table cimport StatusTable
from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.task_cache cimport TaskCache
from tastypy_fast._core.write_cache cimport WriteCache

from tastypy_fast.exceptions import CalledClosedTrackerError, PersistentOrderedDictIntegrityError

__all__ = ["COPIES", "ITEMS", "KEYS", "REVERTS", "STATUSES", "VALUES", "StoreHandle", "StoreIterator", "TaskIterator"]

cdef enum:
    FIRST_CHUNK = 16
    LARGEST_CHUNK = 512
    # The chunk size of an iterator over tasks while other processes write often.
    SMALL_CHUNK = 8
    # A chunk ends with the record that takes it past this size.
    CHUNK_BYTES = 1 << 20
    # To reach a record at most this far ahead, a scan steps over records instead of seeking.
    NEAR = 4

# The key of the number of reverts in the database meta.
REVERTS = b"reverts"
# Returned for an item of the chunk that must not be yielded any more.
GONE = object()
cdef long long END = <long long>0x7fffffffffffffff


cdef class StoreHandle:
    """The fields of an instance that its iterators use."""

    cdef WriteCache open_cache(self):
        if self.cache is None:
            raise CalledClosedTrackerError("this store was closed; open it again to use it")
        return self.cache

    cdef long long threshold(self):
        """Return how many dirty keys make a sync; 0 if the automatic sync is suspended."""
        if self.cache.writes_through:
            return 1
        # Only in the thread of the block, because another thread asks before it waits for the end of the block.
        if self.held or (self.blocks and self.cache.store.lock.is_mine()):
            return 0
        return self.sync_at


cdef class StoreIterator(ValueLoop):
    """Yield keys, values or pairs in the order in which the keys were added, or backwards."""

    def __cinit__(self):
        self.finished = True

    def __init__(self, StoreHandle handle not None, int kind, bint backwards=False):
        self.finished = False
        self.handle = handle
        self.cache = handle.open_cache()
        self.kind = kind
        self.backwards = backwards
        self.position = END if backwards else -1
        self.seqs = self.records = []
        self.limit = FIRST_CHUNK
        self.cache_version = -1

    def __iter__(self):
        return self

    def seek(self, long long position):
        """Continue after this seq, or before it in a backward iterator."""
        self.position = position
        self.seqs = self.records = []
        self.at = 0

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
        """Return the next item to yield. Raises StopIteration at the end."""
        cdef long long seq, before
        while True:
            if self.handle.cache is None:
                self.handle.open_cache()
            if self.at >= len(self.records) or self.is_outdated():
                self.refill()
                if not self.records:
                    self.finish()
                    raise StopIteration
            seq = self.seqs[self.at]
            item = self.records[self.at]
            self.at += 1
            before = self.position
            self.position = seq
            result = self.offer(seq, item, before)
            if result is not GONE:
                return result
            if self.is_reverted:
                # Seek again, because revert() may have restored keys that come before this one.
                self.is_reverted = False
                if self.position == seq:
                    # Otherwise another thread has advanced this iterator, and going back would yield items twice.
                    self.seek(before)

    cdef int finish(self) except -1:
        """End the loop, and drop what it keeps."""
        self.finished = True
        self.seqs = self.records = []
        self.cache.last_yielded.record = None
        if self.cache.last_yielded.copied is self.copied:
            self.cache.last_yielded.copied = None
        self.copied = None
        return 0

    cdef int release(self) except -1:
        """Let go of the store after the end, as the iterator of a dict does, unless another thread is in a step."""
        if self.running == 0:
            # Clear the fields first, because the end of the last reference to a store runs its finalizers.
            _handle, _cache = self.handle, self.cache
            self.handle = None
            self.cache = None
        return 0

    cdef bint is_outdated(self) except -1:
        """Return whether the rest of the chunk may be outdated."""
        return self.cache_version != self.cache.cache_version or self.cache.is_stale()

    cdef int begin_step(self, long long seq, long long before) except -1:
        """Begin the operation that yields the item at ``seq``. ``before`` is the position before this step."""
        try:
            self.cache.begin_op()
        except BaseException:
            # Nothing was yielded. Go back, because the item would be lost if the iterator is continued. If another
            # thread has advanced the iterator, its position stays.
            if self.position == seq:
                self.seek(before)
            raise
        return 0

    cdef object offer(self, long long seq, object item, long long before):
        """Return the value to yield for an item of the chunk, or GONE. ``before`` is the position before this step."""
        if not self.cache.store.snapshot_per_op and (not self.cache.tracks or self.kind == KEYS):
            return self.offer_now(seq, item)
        # Hold the lock, because the status of a task is read, too, and must belong to its value. If other processes
        # may write, the record is read again when the store has changed since the chunk was read.
        self.begin_step(seq, before)
        try:
            item = self.as_it_is_now(seq, item)
            return GONE if item is None or self.is_overtaken(seq) else self.offer_now(seq, item)
        finally:
            self.cache.end_op()

    cdef object as_it_is_now(self, long long seq, object item):
        """Return an item of the chunk, read again if other processes have written since. The caller holds the lock.

        Returns None if the item was deleted or a revert may have restored items before it.
        """
        if self.snapshot_id == self.cache.snapshot_id or not self.cache.store.snapshot_per_op:
            return item
        if self.reverts != self.count_reverts():
            self.is_reverted = True
            return None
        return self.read_again(seq, item)

    cdef object count_reverts(self):
        """Return how often a shared store was reverted, as the bytes in the database."""
        return self.cache.get(REVERTS, self.cache.store.meta)

    cdef bint is_overtaken(self, long long seq) except -1:
        """Return whether another cache (clone=False) has written before this thread acquired the lock.

        If so, the iterator seeks again, starting at this item.
        """
        if self.cache.store.snapshot_per_op or self.cache_version == self.cache.cache_version:
            return False
        self.seek(seq + 1 if self.backwards else seq - 1)
        return True

    cdef object read_again(self, long long seq, object item):
        """Return an item of the chunk as it is on disk now, or None if it was deleted.

        With ``bare`` the item is a key, and stays valid because a seq never changes its key.
        """
        cdef StoreBase store = self.cache.store
        if self.bare:
            return item if store.reader().cursor(store.values).set_key(pack(seq)) else None
        return self.cache.record_at(seq)

    cdef object offer_now(self, long long seq, object item):
        cdef Entry entry
        cdef bytes encoded
        cdef Record record
        entry = self.parse_item(seq, item, &record)
        encoded = self.encoded
        if entry is not None and (not entry.exists or entry.seq != seq and (entry is item or entry.relocated)):
            return GONE
        if entry is None and self.kind == KEYS and not self.bare:
            self.remember_record(seq, item)
        result = self.hand_out(self.cache, entry, &record, seq)
        if encoded is not None and self.kind == KEYS:
            self.cache.remember_key(result, encoded)
        return result

    cdef Entry parse_item(self, long long seq, object item, Record* record):
        """Find the key in an item of the chunk. Returns the cache entry of the key, or None."""
        cdef bytes raw
        self.encoded = None
        if type(item) is Entry:
            raw = self.encoded = (<Entry>item).key
            record.key = <const unsigned char*>PyBytes_AS_STRING(raw)
            record.key_size = PyBytes_GET_SIZE(raw)
            return <Entry>item
        raw = item
        if self.bare:
            record.key = <const unsigned char*>PyBytes_AS_STRING(raw)
            record.key_size = PyBytes_GET_SIZE(raw)
        else:
            try:
                parse_record(<const unsigned char*>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw), record)
            except PersistentOrderedDictIntegrityError as error:
                raise damaged(self.cache, seq, error) from error
        if self.cache.entries or self.cache.pinned.by_key:
            self.encoded = record.key[:record.key_size]
            return self.cache.entry_of(self.encoded)
        return None

    cdef int remember_record(self, long long seq, object item) except -1:
        """Keep the record of a yielded key, because callers often read its value next."""
        self.cache.last_yielded.set_record(item, seq, self.cache_version, self.cache.snapshot_id)
        return 0

    cdef object hand_out(self, WriteCache cache, Entry entry, Record* record, long long seq):
        cdef object key = None, value
        cdef YieldedCopy copied
        if self.kind != VALUES:
            try:
                key = decode_key_at(record.key, record.key_size)
            except PersistentOrderedDictIntegrityError as error:
                raise damaged(cache, seq, error) from error
            if self.kind == KEYS:
                return key
        # One object for the whole iteration, which always describes the item that was yielded last.
        copied = self.copied
        if copied is None:
            copied = self.copied = YieldedCopy.__new__(YieldedCopy)
            cache.loops = [loop for loop in cache.loops if loop() is not None] + [ref(self)]
        if copied.watched is not None:
            copied.watched = None
        if entry is None:
            value = self.decode(cache, record, seq, copied)
        elif entry.value is not None:
            value = cache.copy_of(entry, copied)
        else:
            copied.codec = entry.codec
            copied.payload = entry.payload
            value = cache.decode(entry.key, seq, entry.codec, entry.payload)
        copied.key = key
        copied.seq = seq
        copied.value = value
        copied.status = cache.decoded_status
        copied.generation = cache.copy_generation
        cache.last_yielded.copied = copied
        cache.last_yielded.set_item(key, seq)
        return value if self.kind == VALUES else (key, value)

    cdef object decode(self, WriteCache cache, Record* record, long long seq, YieldedCopy copied):
        cdef bytes payload
        try:
            payload = record_payload(record)
            copied.codec = record.codec
            copied.payload = payload
        except PersistentOrderedDictIntegrityError as error:
            raise cache.damaged(cache.key_of(record.key[:record.key_size]), error) from error
        try:
            return cache.decode(b"", seq, record.codec, payload)
        except PersistentOrderedDictIntegrityError:
            # Decode again with the key, which only the error message needs.
            return cache.decode(record.key[:record.key_size], seq, record.codec, payload)

    cdef int refill(self) except -1:
        """Read the next chunk."""
        cdef list seqs = [], records = []
        cdef WriteCache cache = self.cache
        cdef long long snapshot_id
        cache.begin_op()
        try:
            cache.resolve()
            if self.cache_version != cache.cache_version:
                # Drop the old chunk now, because it would be yielded after an exception below.
                self.seqs = self.records = []
                # Decided again only after a sync. If another process writes, an outdated decision costs only time.
                self.bare = self.kind == KEYS and cache.store.has_large_values()
                self.cache_version = cache.cache_version
            if cache.store.snapshot_per_op:
                self.reverts = self.count_reverts()
            cut = self.read_disk(seqs, records)
            if cache.new_entries:
                self.add_new(seqs, records, cut)
            snapshot_id = cache.snapshot_id
        except Exception as error:
            cache.store.reraise(error)
        finally:
            cache.end_op()
        return self.set_chunk(seqs, records, snapshot_id)

    cdef int set_chunk(self, list seqs, list records, long long snapshot_id) except -1:
        self.seqs = seqs
        self.records = records
        self.snapshot_id = snapshot_id
        self.at = 0
        self.limit = min(self.limit * 2, LARGEST_CHUNK)
        return 0

    cdef int read_disk(self, list seqs, list records) except -1:
        """Read a chunk from disk. Returns whether there may be records after it."""
        cdef Py_ssize_t size = 0, steps = 0
        cdef Record record
        cdef const unsigned char[::1] view
        cdef long long seq, position = self.position
        cdef WriteCache cache = self.cache
        cdef StoreBase store = cache.store
        cdef bint jumps
        cdef DeletedStretch stretch = DeletedStretch(cache.runs, self.backwards) if cache.deleted else None
        # With ``bare`` read through the memory map, because a copy of each large value is not needed.
        txn = store.reader_of_buffers() if self.bare else store.reader()
        cursor = txn.cursor(store.values)
        jumps = True
        while jumps and self.move_cursor(cursor, position):
            jumps = False
            for number, raw in cursor.iterprev() if self.backwards else cursor.iternext():
                cache.steps += 1
                steps += 1
                if self.bare:
                    memcpy(&seq, PyBytes_AS_STRING(bytes(number)), 8)
                    view = raw
                    parse_record(&view[0] if view.shape[0] else NULL, view.shape[0], &record)
                    item = record.key[:record.key_size]
                else:
                    memcpy(&seq, PyBytes_AS_STRING(number), 8)
                    item = raw
                size += PyBytes_GET_SIZE(item)
                if stretch is not None:
                    if seq in cache.deleted:
                        position = stretch.skip(seq)
                        if position != seq:
                            jumps = True
                            break
                        if steps < LARGEST_CHUNK and size < CHUNK_BYTES:
                            continue
                        # End the chunk with this record, so that the lock is not held for all deleted records. Its
                        # entry says that it must not be yielded.
                    stretch.stop()
                records.append(item)
                seqs.append(seq)
                if len(seqs) >= self.limit or steps >= LARGEST_CHUNK or size >= CHUNK_BYTES:
                    return True
        if stretch is not None:
            stretch.stop()
        return False

    cdef bint move_cursor(self, object cursor, long long position) except -1:
        """Move a cursor to the first record behind a position, in the direction of the iterator."""
        if not self.backwards:
            return cursor.set_range(pack(position + 1))
        if position != END and cursor.set_range(pack(position)):
            return cursor.prev()
        return cursor.last()

    cdef int add_new(self, list seqs, list records, bint cut) except -1:
        """Merge new entries, which are only in memory, into the chunk. They nearly always follow all records on disk.

        ``cut`` says that the chunk does not reach the end of the database.
        """
        cdef list numbers = self.cache.new_seqs, pairs = []
        cdef dict entries = self.cache.new_entries
        cdef long long bound = -1 if self.backwards else END
        cdef Py_ssize_t start = self.cache.new_start
        if self.backwards:
            first = bisect_right(numbers, seqs[len(seqs) - 1], start) if cut else start
            places = range(bisect_left(numbers, self.position, start) - 1, first - 1, -1)
        else:
            last = bisect_right(numbers, seqs[len(seqs) - 1], start) if cut else len(numbers)
            places = range(bisect_right(numbers, self.position, start), last)
        for place in places:
            self.cache.steps += 1
            number = numbers[place]
            entry = entries.get(number)
            if entry is None:
                # Deleted. new_seqs is cleaned later, for many numbers at once.
                continue
            if len(pairs) == self.limit:
                # The next chunk has the rest, and the records on disk after these.
                bound = pairs[len(pairs) - 1][0]
                break
            pairs.append((number, entry))
        if not pairs:
            return 0
        for position in range(len(seqs)):
            if seqs[position] > bound if self.backwards else seqs[position] < bound:
                pairs.append((seqs[position], records[position]))
        if seqs:
            pairs.sort(key=first_of, reverse=self.backwards)
        seqs[:] = [number for number, _ in pairs]
        records[:] = [record for _, record in pairs]
        return 0


@cython.final
cdef class TaskIterator(StoreIterator):
    """Yield the tasks with a certain status. ``attempt`` counts a try of each task before it is yielded.

    A scan of the status blocks finds the seqs of a chunk. Each status is read again before its task is yielded.
    """

    def __init__(self, StoreHandle handle not None, int kind, uint32_t wanted, uint32_t unwanted, bint limited,
                 bint attempt):
        StoreIterator.__init__(self, handle, kind)
        self.tasks = <TaskCache?>self.cache
        self.flags = PRESENT | wanted
        self.mask = PRESENT | wanted | unwanted
        self.max_tries = handle.max_tries if limited else 0
        self.attempt = attempt
        if attempt and not self.cache.writable:
            raise self.cache.store.refuse_write()

    @property
    def counts_tries(self):
        """Whether it counts a try of each task that it yields."""
        return self.attempt

    def close(self):
        """End the iteration. A try is counted when its task is yielded, so no task that lies ahead has one."""
        # The task that was yielded last may still be running.
        self.slot = None
        if not self.finished:
            self.finish()
        self.release()

    cdef int release(self) except -1:
        if self.running == 0:
            _tasks = self.tasks
            self.tasks = None
        return StoreIterator.release(self)

    cdef int finish(self) except -1:
        if self.slot is not None:
            self.slot.end()
            self.slot = None
        return StoreIterator.finish(self)

    cdef bint is_outdated(self) except -1:
        cdef StatusTable status = self.tasks.status
        cdef long long changes, last
        if self.tasks.store.snapshot_per_op:
            # Another process may have opened a task that the scan skipped. Chunks are small while others write often.
            if self.is_current():
                return False
            self.limit = SMALL_CHUNK
            return True
        if self.tasks.borrowed:
            self.tasks.read_borrowed_statuses()
        changes = status.abortions if self.flags & ABORTED else status.openings
        last = status.last_aborted if self.flags & ABORTED else status.last_opened
        if changes != self.changes:
            # A task that the scan skipped is wanted now. The chunk is outdated if this task is after the position.
            if changes - self.changes > 1 or last > self.position:
                return True
            self.changes = changes
        return StoreIterator.is_outdated(self)

    cdef bint is_current(self) except -1:
        """Return whether the store has not changed since the chunk was read."""
        self.tasks.begin_op()
        try:
            return self.snapshot_id == self.tasks.snapshot_id
        finally:
            self.tasks.end_op()

    cdef object offer(self, long long seq, object item, long long before):
        self.begin_step(seq, before)
        try:
            item = self.as_it_is_now(seq, item)
            return GONE if item is None or self.is_overtaken(seq) else self.offer_task(seq, item)
        finally:
            self.tasks.end_op()

    cdef object offer_task(self, long long seq, object item):
        """Return the task if it still has the wanted status, else GONE. The caller holds the lock."""
        cdef TaskCache tasks = self.tasks
        cdef Entry entry = None
        cdef Record record
        cdef uint32_t status
        cdef object key, value
        cdef bytes encoded
        entry = self.parse_item(seq, item, &record)
        # A signal handler or a finalizer may advance this iterator during the sync below.
        encoded = self.encoded
        if entry is not None and (not entry.exists or entry.seq != seq):
            return GONE
        if entry is not None:
            tasks.read_status_from_dict(entry)
        # The status is 0 if the task was deleted since the chunk was read.
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
            if self.slot is None:
                self.slot = tasks.open_running_slot()
            tasks.set_status(seq, entry, make_entry(status & FLAGS, tries_of(status) + 1))
            self.slot.set(seq, record.key, record.key_size, tries_of(status) + 1)
        if self.kind == KEYS:
            if entry is None:
                self.remember_record(seq, item)
            tasks.sync_if_due(self.handle.threshold())
            value = None
        elif self.kind == STATUSES or self.kind == COPIES:
            return key, self.copy_of(entry, &record, seq, item, status)
        else:
            # The dict is watched as with tracker[key], so changes inside it are saved.
            if entry is None:
                entry = tasks.entry_from_record(record.key[:record.key_size], seq, item)
            value = tasks.borrow(entry)
            if tasks.writable and (self.attempt or not entry.counts_as_dirty) and entry.value is not None:
                tasks.sync_if_due(self.handle.threshold())
                if tasks.entry_of(entry.key) is not entry:
                    tasks.adopt(entry)
                else:
                    tasks.count_as_dirty(entry)
                tasks.schedule_sync()
        tasks.last_yielded.set_item(key, seq)
        if encoded is not None:
            tasks.remember_key(key, encoded)
        return key if self.kind == KEYS else value if self.kind == VALUES else (key, value)

    cdef dict copy_of(self, Entry entry, Record* record, long long seq, object item, uint32_t status):
        """Return a copy of a task's dict, which is not watched. With STATUSES, its data are not decoded."""
        cdef TaskCache tasks = self.tasks
        if self.kind == STATUSES:
            return {"_done": (status & DONE) != 0, "_aborted": (status & ABORTED) != 0, "_tries": tries_of(status)}
        if entry is None:
            entry = tasks.entry_from_record(record.key[:record.key_size], seq, item)
        return tasks.copy_of_entry(entry)

    cdef int refill(self) except -1:
        cdef TaskCache tasks = self.tasks
        cdef list seqs = [], records = []
        cdef long long snapshot_id
        tasks.begin_op()
        try:
            tasks.resolve()
            # Read the dicts of pinned entries only at the first chunk. Reading them at each chunk would take quadratic
            # time, because a caller may keep more and more values while the iterator runs.
            tasks.read_all_statuses_from_dicts(self.cache_version == -1)
            self.cache_version = tasks.cache_version
            self.changes = tasks.status.abortions if self.flags & ABORTED else tasks.status.openings
            if not tasks.status.compared:
                # Compare the counts of tasks and statuses once, because a task without a status would be skipped
                # without an error.
                tasks.status.count()
            snapshot_id = tasks.snapshot_id
            if tasks.store.snapshot_per_op:
                self.reverts = self.count_reverts()
            chosen = self.choose()
            if not chosen and tasks.pinned.by_key:
                # Read all dicts again at the end, because a task after the position may have become wanted since.
                tasks.read_all_statuses_from_dicts(True)
                chosen = self.choose()
            self.read_chosen(chosen, seqs, records)
        except Exception as error:
            tasks.store.reraise(error)
        finally:
            tasks.end_op()
        return self.set_chunk(seqs, records, snapshot_id)

    cdef list choose(self):
        """Return the seqs of the next tasks with the wanted status."""
        return self.tasks.status.scan(self.position, self.limit, self.flags, self.mask, self.max_tries)

    cdef int read_chosen(self, list chosen, list seqs, list records) except -1:
        """Read the records of the chosen tasks into the chunk, up to its size limit."""
        cdef TaskCache tasks = self.tasks
        cdef dict new_entries = tasks.new_entries
        cdef Entry entry
        cdef Py_ssize_t size = 0
        cdef long long at = END
        cdef long long seq
        cursor = tasks.store.reader().cursor(tasks.store.values)
        pairs = iter(())
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
                    raise tasks.damaged("?", f"the task of sequence number {seq} has a status and no record")
                size += len(record)
            seqs.append(place)
            records.append(record)
            if size >= CHUNK_BYTES:
                break
        return 0


def first_of(pair):
    return pair[0]


cdef object damaged(WriteCache cache, long long seq, object error):
    return cache.store.damaged(f"record {seq}: {error}")
