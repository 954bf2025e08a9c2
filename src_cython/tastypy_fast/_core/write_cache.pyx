"""Keep changes in memory until a sync writes them: the write-back cache of a store.

The cache holds the changes between two syncs, never the whole store. Reading or changing a key in the cache uses only
the cache's dict. Reading another key costs one lookup in LMDB. Assigning another key costs no lookup, because
``resolve()`` looks up many assigned keys at once.

Locking: every method that reads LMDB or changes more than one entry holds the store's lock (``begin_op``, ``end_op``).
The fast paths of reading and assigning a cached key take no lock. They call no Python code, so the interpreter lock
makes them atomic. They are not used while ``busy`` says that another thread is in a locked section.

Values: the caller may change a list or dict that ``pod[key]`` returned at any time. So each sync compares it with its
JSON while the caller references it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.stdint cimport uint32_t
from libc.string cimport memcmp

from tastypy_fast._core.before_images cimport BeforeImages
from tastypy_fast._core.cache_entry cimport (
    ABSENT,
    UNKNOWN,
    Entry,
    LastYielded,
    ValueLoop,
    YieldedCopy,
    is_referenced,
    make_entry,
    pack,
)
from tastypy_fast._core.deleted_runs cimport DeletedRuns, DeletedStretch
from tastypy_fast._core.interrupts cimport HeldSignals
from tastypy_fast._core.key_codec cimport MAX_INDEX_KEY, decode_key, describe, index_key, is_digest, wanted_key
from tastypy_fast._core.pinned_entries cimport PinnedEntries
from tastypy_fast._core.record_codec cimport (
    NO_PAYLOAD,
    Record,
    dump_value,
    is_json_of,
    load_value,
    parse_record,
    record_payload,
)
from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.sync_schedule cimport SyncSchedule, monotonic, thread_cpu_time
from tastypy_fast._core.sync_writer cimport count_bytes, count_places, insert_keys, unpack_seq, write_records

import errno
from copy import deepcopy

from tastypy_fast.exceptions import (
    CalledClosedTrackerError,
    PersistentOrderedDictIntegrityError,
    StorageError,
    UnstorableValueError,
)

__all__ = ["WriteCache"]

cdef enum:
    # The codec of a copy whose value could not be stored.
    UNSTORABLE = -1
    # The default of watched_by_each.
    WATCHED_BY_EACH = 1000


cdef class WriteCache:
    """The cache that all instances on one path share.

    ``copies`` says that reads return copies, which are never saved. ``writes_through`` says that every change is synced
    at once.
    """

    def __cinit__(self):
        self.watched_by_each = WATCHED_BY_EACH
        self.schedule = SyncSchedule()

    def __init__(self, StoreBase store not None):
        self.store = store
        self.forget()

    def forget(self):
        """Drop all entries, and begin with the current state of the store, after opening or in a forked child."""
        self.entries = {}
        self.pinned = PinnedEntries()
        self.unresolved = []
        self.forget_new()
        self.forget_deleted()
        self.len_delta = 0
        self.disk_count = -1
        self.dirty_count = 0
        self.disk_version = self.store.disk_version
        self.busy = 0
        self.writable = self.store.writable
        self.last_yielded = LastYielded.__new__(LastYielded)
        self.last_yielded.seq = ABSENT
        self.loops = []
        self.copy_generation += 1
        self.borrowed = set()
        self.cache_version += 1
        self.snapshot_id = -1
        self.schedule.clear()
        self.forget_status()

    # Operations

    cdef int begin_op(self) except -1:
        """Begin an operation: acquire the store's lock, and open a current snapshot."""
        self.store.lock.acquire()
        if self.is_writing:
            self.store.lock.release()
            raise StorageError(errno.EBUSY, "a finalizer (__del__) interrupted a sync, during which it cannot "
                               "use the store; nothing was changed", self.store.path)
        self.busy += 1
        if self.closed or self.is_stale() or self.store.snapshot is None or self.store.snapshot_per_op:
            try:
                if self.closed:
                    raise CalledClosedTrackerError("this store was closed by another thread; open it again to use it")
                if self.store.snapshot_per_op and self.store.snapshot is None:
                    self.store.recheck_files()
                if self.is_stale():
                    if self.store.wal is not None:
                        # An interrupt may have come between a commit and the end of the earlier snapshot. Without this
                        # the operation would read the old snapshot.
                        self.store.end_reading()
                    self.reload()
                # Open the snapshot before the operation, because this calls Python, where a signal handler may raise.
                # Inside the operation this could leave it half done. A forked child opens the files again here.
                self.store.reader()
                if self.store.snapshot_per_op and self.busy == 1:
                    self.on_new_snapshot()
            except BaseException:
                self.end_op()
                raise
        return 0

    cdef int end_op(self) except -1:
        self.busy -= 1
        if self.busy == 0:
            if self.store.snapshot_per_op:
                self.store.end_snapshot()
        self.store.lock.release()
        return 0

    cdef int on_new_snapshot(self) except -1:
        """Drop the facts read from an older snapshot of a store that other processes write."""
        # The log has read the number of the snapshot already.
        cdef long long number = self.store.snapshot.id() if self.store.wal is None else self.store.wal.snapshot_id
        if number != self.snapshot_id:
            self.snapshot_id = number
            self.disk_count = -1
            self.forget_status()
        return 0

    cdef bint is_stale(self) noexcept:
        """Return whether the store may have been written since this cache last read the disk."""
        return self.disk_version != self.store.disk_version

    cdef long long pending(self) except -1:
        """Return how many keys count towards sync_at."""
        return self.dirty_count

    # Hooks that TaskCache overrides

    cdef object decode(self, bytes key, long long seq, int codec, bytes payload):
        try:
            return load_value(codec, payload)
        except PersistentOrderedDictIntegrityError as error:
            raise self.damaged(self.key_of(key), error) from error

    cdef uint32_t status_of_seq(self, long long seq) except? 0xffffffff:
        """Return the status that ``decode_with()`` needs."""
        return 0

    cdef object decode_with(self, bytes key, uint32_t status, int codec, bytes payload):
        """Decode a value with a status that was read before. The caller need not hold the lock."""
        return self.decode(key, ABSENT, codec, payload)

    cdef bytes serialise(self, Entry entry, int* codec):
        """Encode the value of an entry, which the caller may have changed, as JSON."""
        return self.dump(entry.value, codec)

    cdef bytes dump(self, object value, int* codec):
        return dump_value(value, codec)

    cdef int write_status_to_value(self, object value, long long seq) except -1:
        return 0

    cdef int on_entry_added(self, Entry entry) except -1:
        return 0

    cdef int on_entry_removed(self, Entry entry) except -1:
        return 0

    cdef bint status_differs(self) except -1:
        """Return whether a sync has statuses to write."""
        return False

    cdef Py_ssize_t status_places(self) except -1:
        """Return how many pages of statuses differ from the disk."""
        return 0

    cdef int write_status(self, object txn, set only, set skip) except -1:
        return 0

    cdef int status_written(self, set only, set skip) except -1:
        return 0

    cdef uint32_t status_on_disk(self, object txn, long long seq) except? 0xffffffff:
        return 0

    cdef int forget_status(self) except -1:
        return 0

    cdef list dirty_status_seqs(self):
        return []

    # Finding

    cdef object damaged(self, object key, object what):
        return PersistentOrderedDictIntegrityError(
            f"the store at {self.store.path} is damaged at key {describe(key)}: {what}"
        )

    cdef object key_of(self, bytes key):
        """Decode a key of the store."""
        try:
            return decode_key(key)
        except PersistentOrderedDictIntegrityError as error:
            raise PersistentOrderedDictIntegrityError(
                f"the store at {self.store.path} is damaged: {error}"
            ) from error

    cdef bytes wanted(self, object key):
        """Encode a key that is looked up, or return None for an object that no store has as a key.

        A key that was used last is not encoded again, and the dicts of entries do not hash it again.
        """
        cdef bytes encoded
        if key is not None and key is self.last_key:
            return self.last_encoded
        encoded = wanted_key(key)
        self.remember_key(key, encoded)
        return encoded

    cdef int remember_key(self, object key, bytes encoded) except -1:
        """Note the encoding of a key. Keys of other types are not kept, because they may have finalizers."""
        if type(key) is str:
            self.last_key = key
            self.last_encoded = encoded
        return 0

    cdef object get(self, bytes key, object database):
        """Read one value from LMDB."""
        try:
            return self.store.reader().get(key, None, database)
        except Exception as error:
            self.store.reraise(error)

    cdef dict get_many(self, list keys, object database):
        try:
            return dict(self.store.reader().cursor(database).getmulti(keys))
        except Exception as error:
            self.store.reraise(error)

    cdef bytes record_at(self, long long seq):
        return self.get(pack(seq), self.store.values)

    cdef Entry entry_of(self, bytes key):
        """Return the cache entry of a key, or None."""
        cdef Entry entry = self.entries.get(key)
        if entry is None and self.pinned.by_key:
            entry = self.pinned.by_key.get(key)
        return entry

    cdef bint is_last_yielded(self, bytes key) except -1:
        """Return whether ``last_yielded`` has the record of this key, and the record is still valid.

        The caller holds the lock, and has found no entry for the key.
        """
        cdef Record record
        cdef LastYielded last = self.last_yielded
        if last.record is None or last.cache_version != self.cache_version or (
                self.store.snapshot_per_op and last.snapshot_id != self.snapshot_id):
            return False
        parse_record(<const unsigned char*>PyBytes_AS_STRING(last.record), PyBytes_GET_SIZE(last.record), &record)
        return record.key_size == PyBytes_GET_SIZE(key) and not memcmp(record.key, PyBytes_AS_STRING(key),
                                                                       record.key_size)

    cdef bytes find_record(self, bytes key, long long* seq):
        """Return the record of a key on disk and set ``seq``, or return None. The caller holds the lock."""
        cdef Record record
        if self.is_last_yielded(key):
            seq[0] = self.last_yielded.record_seq
            return self.last_yielded.record
        number = self.get(index_key(key), self.store.order)
        if number is None:
            return None
        seq[0] = unpack_seq(self.store, number)
        raw = self.get(number, self.store.values)
        self.parse_found(key, raw, &record)
        return raw

    cdef int parse_found(self, bytes key, bytes raw, Record* record) except -1:
        """Parse the record to which the index refers for a key. ``raw`` is None if there is none."""
        if raw is None:
            raise self.damaged(self.key_of(key), "the index refers to a record that does not exist")
        try:
            parse_record(<const unsigned char*>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw), record)
        except PersistentOrderedDictIntegrityError as error:
            raise self.damaged(self.key_of(key), error) from error
        if record.key_size != PyBytes_GET_SIZE(key) or memcmp(record.key, PyBytes_AS_STRING(key), record.key_size):
            raise self.damaged(self.key_of(key), "the index refers to the record of another key")
        return 0

    cdef long long find_seq(self, bytes key) except? -3:
        """Return the seq of a key in the cache or on disk, or ABSENT."""
        cdef Entry entry = self.entries.get(key)
        if entry is None:
            return self.seq_on_disk(key)
        if entry.exists and entry.seq == UNKNOWN:
            self.resolve()
            entry = self.entries[key]
        return entry.seq if entry.exists else ABSENT

    cdef long long seq_on_disk(self, bytes key) except? -3:
        """Return the seq of a key that has no dirty entry, or ABSENT."""
        cdef long long seq = ABSENT
        cdef bytes index
        if self.is_last_yielded(key):
            return self.last_yielded.record_seq
        index = index_key(key)
        if is_digest(index):
            return seq if self.find_record(key, &seq) is not None else ABSENT
        number = self.get(index, self.store.order)
        return ABSENT if number is None else unpack_seq(self.store, number)

    cdef list find_seqs(self, list keys):
        """Return the seqs of many keys, with one call of LMDB. See find_seq()."""
        cdef list seqs = []
        cdef list wanted = []
        cdef Entry entry
        cdef bytes key
        cdef dict found
        if len(keys) <= FEW:
            # Opening a cursor would cost more than the lookups.
            for key in keys:
                seqs.append(self.find_seq(key))
            return seqs
        if self.unresolved:
            self.resolve()
        for key in keys:
            if key not in self.entries and PyBytes_GET_SIZE(key) <= MAX_INDEX_KEY:
                wanted.append(key)
        found = self.get_many(wanted, self.store.order)
        for key in keys:
            entry = self.entries.get(key)
            if entry is not None:
                seqs.append(entry.seq if entry.exists else ABSENT)
            elif PyBytes_GET_SIZE(key) > MAX_INDEX_KEY:
                seqs.append(self.find_seq(key))
            else:
                number = found.get(key)
                seqs.append(ABSENT if number is None else unpack_seq(self.store, number))
        return seqs

    cdef Entry entry_from_record(self, bytes key, long long seq, bytes raw):
        """Make an entry from a record on disk. The caller adds it to the cache."""
        cdef Entry entry = make_entry(key, seq, seq)
        entry.payload = self.payload_in(key, raw, &entry.codec)
        return entry

    cdef bytes payload_in(self, bytes key, bytes raw, int* codec):
        """Return the payload of a record on disk, and set its codec."""
        cdef Record record
        try:
            parse_record(<const unsigned char*>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw), &record)
            codec[0] = record.codec
            return record_payload(&record)
        except PersistentOrderedDictIntegrityError as error:
            raise self.damaged(self.key_of(key), error) from error

    cdef object decode_record(self, bytes key, long long seq, bytes raw):
        """Return the value in a record on disk."""
        cdef int codec = 0
        cdef bytes payload = self.payload_in(key, raw, &codec)
        return self.decode(key, seq, codec, payload)

    cdef int resolve(self) except -1:
        """Look up the keys that were assigned without a lookup, and allocate seqs for the new ones."""
        cdef list keys, unresolved = self.unresolved
        cdef dict found
        cdef Entry entry
        cdef bytes index
        cdef long long seq = 0
        if not unresolved:
            return 0
        keys = [index_key((<Entry>item).key) for item in unresolved]
        found = self.get_many(keys, self.store.order)
        for position in range(len(unresolved)):
            entry = unresolved[position]
            index = keys[position]
            number = found.get(index)
            if number is not None and is_digest(index):
                self.find_record(entry.key, &seq)  # compares the whole keys
            entry.disk_seq = ABSENT if number is None else unpack_seq(self.store, number)
        self.unresolved = []
        for position in range(len(unresolved)):
            entry = unresolved[position]
            if entry.exists:
                if entry.disk_seq >= 0 and (not entry.relocated or entry.disk_seq == entry.seq):
                    # A relocated entry whose new seq is on disk was committed, and an exception came right after that.
                    self.untrack_new(entry)
                    entry.seq = entry.disk_seq
                    entry.relocated = False
                elif self.new_entries.get(entry.seq) is not entry:
                    # The key is new, or another cache (clone=False) has deleted it from the disk.
                    entry.seq = self.store.allocate()
                    self.track_new(entry)
            elif entry.disk_seq == ABSENT:
                # Another cache on this store (clone=False) has also deleted the key.
                self.drop(entry)
                continue
            else:
                self.deleted.add(entry.disk_seq)
            if entry.exists and entry.disk_seq == ABSENT and not entry.dirty and not entry.relocated:
                # The key was only read here, and another cache has deleted it since.
                self.drop(entry)
                continue
            self.add_len_delta(entry)
        return 0

    # Accounting

    cdef int add_len_delta(self, Entry entry) except -1:
        """Add an entry to ``len_delta``: whether the key exists now minus whether it is on disk."""
        self.len_delta += entry.exists - (entry.disk_seq >= 0)
        return 0

    cdef int remove_len_delta(self, Entry entry) except -1:
        if entry.disk_seq != UNKNOWN:
            self.len_delta -= entry.exists - (entry.disk_seq >= 0)
        return 0

    cdef int track_new(self, Entry entry) except -1:
        """Let iterators find an entry whose seq is not on disk."""
        self.new_entries[entry.seq] = entry
        self.new_seqs.append(entry.seq)
        return 0

    cdef int untrack_new(self, Entry entry) except -1:
        if self.new_entries and entry.seq in self.new_entries:
            del self.new_entries[entry.seq]
            if len(self.new_seqs) > 2 * len(self.new_entries) + 100:
                self.new_seqs = sorted(self.new_entries)
                self.new_start = 0
            # An iterator begins at either end of new_seqs, and would meet all that are outdated there.
            while self.new_start < len(self.new_seqs) and self.new_seqs[self.new_start] not in self.new_entries:
                self.new_start += 1
            while len(self.new_seqs) > self.new_start and self.new_seqs[len(self.new_seqs) - 1] not in self.new_entries:
                self.new_seqs.pop()
        return 0

    cdef int forget_new(self) except -1:
        self.new_entries = {}
        self.new_seqs = []
        self.new_start = 0
        return 0

    cdef int forget_deleted(self) except -1:
        """Forget which records are deleted, because a sync has deleted them on disk, or because they exist again."""
        self.deleted = set()
        self.runs = DeletedRuns()
        return 0

    cdef int count_as_dirty(self, Entry entry) except -1:
        """Count an entry towards sync_at."""
        if not entry.counts_as_dirty:
            if entry.pinned:
                self.unpin(entry)
            entry.counts_as_dirty = True
            self.dirty_count += 1
        return 0

    cdef int adopt(self, Entry entry) except -1:
        """Put an entry into the cache, and count it towards sync_at."""
        self.entries[entry.key] = entry
        entry.counts_as_dirty = True
        self.dirty_count += 1
        self.on_entry_added(entry)
        return 0

    cdef int drop(self, Entry entry) except -1:
        self.untrack_new(entry)
        self.entries.pop(entry.key, None)
        self.dirty_count -= entry.counts_as_dirty
        return 0

    cdef int unpin(self, Entry entry) except -1:
        """Let the next sync compare an entry that is pinned."""
        self.pinned.remove(entry)
        self.entries[entry.key] = entry
        return 0

    cdef int unpin_all(self) except -1:
        """Let the next sync compare every entry."""
        cdef dict found = self.pinned.remove_all()
        if found:
            self.entries = {**found, **self.entries}
        self.pinned.clear_queue()
        return 0

    # Reading

    cdef object borrow(self, Entry entry):
        """Return the value of an entry for the caller. With ``copies`` this is a copy, which is never saved."""
        if self.copies:
            return self.decode(entry.key, entry.seq, entry.codec, entry.payload)
        if entry.value is None:
            value = self.decode(entry.key, entry.seq, entry.codec, entry.payload)
            if type(value) is not dict and type(value) is not list:
                return value
            entry.value = value
        entry.status_read = 0
        return entry.value

    cdef object fetch(self, bytes key, object original, long long sync_at):
        """Return the value of a key. A list or dict is watched until the next sync.

        In this and the other methods for existing keys, ``key`` is None for an object that no store has as a key.
        """
        cdef Entry entry
        cdef long long seq = 0
        cdef bytes raw
        if key is None:
            raise KeyError(original)
        self.begin_op()
        try:
            entry = self.entry_of(key)
            if entry is not None:
                if not entry.exists:
                    raise KeyError(original)
                value = self.borrow(entry)
                if self.tracks and self.writable:
                    self.borrowed.add(entry)
                if value is entry.value and self.writable:
                    # Count it again even if it was watched before, because the caller may now change it again.
                    self.count_as_dirty(entry)
                    self.schedule_sync()
                return value
            raw = self.find_record(key, &seq)
            if raw is None:
                raise KeyError(original)
            if not self.writable:
                return self.decode_record(key, seq, raw)
            entry = self.entry_from_record(key, seq, raw)
            value = self.borrow(entry)
            if entry.value is not None:
                # Sync before the entry is adopted. In the other order, the sync could drop the entry, and the change
                # that the caller makes next would be lost.
                self.sync_if_due(sync_at)
                self.adopt(entry)
                if self.tracks:
                    self.borrowed.add(entry)
                self.schedule_sync()
            return value
        finally:
            self.end_op()

    cdef bint contains(self, bytes key) except -1:
        cdef Entry entry = self.entries.get(key)
        if entry is not None and not self.busy and not self.is_stale():
            return entry.exists
        if key is None:
            return False
        self.begin_op()
        try:
            entry = self.entries.get(key)
            return entry.exists if entry is not None else self.find_seq(key) != ABSENT
        finally:
            self.end_op()

    cdef long long length(self) except -1:
        if self.disk_count >= 0 and not self.busy and not self.unresolved \
                and not self.is_stale() and not self.store.snapshot_per_op:
            return self.disk_count + self.len_delta
        self.begin_op()
        try:
            self.resolve()
            if self.disk_count < 0:
                self.disk_count = self.store.count()
            return self.disk_count + self.len_delta
        finally:
            self.end_op()

    def dirty_keys(self):
        """Return the keys that a sync would write, in the order of their first change."""
        cdef Entry entry
        cdef Record record
        cdef int codec = 0
        keys = []
        self.begin_op()
        try:
            for item in [*self.pinned.entries(), *self.entries.values()]:
                entry = item
                if entry.value is not None and not entry.dirty:
                    # Call serialise() before status_dirty is read, because it also reads the status from the value.
                    try:
                        payload = self.serialise(entry, &codec)
                        if codec == entry.codec and payload == entry.payload and not entry.status_dirty:
                            continue
                    except (TypeError, ValueError):
                        pass
                elif not entry.dirty and not entry.status_dirty:
                    continue
                keys.append(self.key_of(entry.key))
            for seq in self.dirty_status_seqs():
                raw = self.record_at(seq)
                if raw is None:
                    raise self.damaged("?", "a status has no record")
                parse_record(<const unsigned char*>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw), &record)
                keys.append(self.key_of(record.key[:record.key_size]))
        finally:
            self.end_op()
        return keys

    # Changing

    cdef Entry put_payload(self, Entry entry, bytes key, int codec, bytes payload):
        """Assign a value to a key whose cache entry is ``entry``, or None. All assignments go through here."""
        if entry is None:
            entry = make_entry(key, UNKNOWN, UNKNOWN)
            self.entries[key] = entry
            self.unresolved.append(entry)
        elif not entry.exists:
            # The key was deleted and is added again. It moves to the end, after the entries that have no seq yet.
            self.resolve()
            self.remove_len_delta(entry)
            del self.entries[key]
            self.entries[key] = entry
            entry.exists = True
            entry.relocated = True
            entry.seq = self.store.allocate()
            self.track_new(entry)
            self.add_len_delta(entry)
        # Keep the old value until the entry is complete, because its finalizers may run any code.
        _before = entry.value
        entry.value = None
        entry.codec = codec
        entry.payload = payload
        entry.dirty = True
        self.count_as_dirty(entry)
        return entry

    cdef Entry put_new(self, bytes key, int codec, bytes payload):
        """Assign a value to a key that is known not to exist."""
        cdef Entry entry = self.entries.get(key)
        if entry is None:
            entry = make_entry(key, ABSENT, self.store.allocate())
            self.entries[key] = entry
            self.track_new(entry)
            self.add_len_delta(entry)
        return self.put_payload(entry, key, codec, payload)

    cdef int put(self, bytes key, object value, long long sync_at) except -1:
        """Assign a value without a lookup. resolve() looks up later, for many keys at once, whether the key is new."""
        cdef int codec = 0
        cdef bytes payload
        cdef Entry entry
        if not self.writable:
            raise self.store.refuse_write()
        payload = dump_value(value, &codec)
        entry = self.entry_of(key)
        if self.busy or self.closed or (entry is not None and not entry.exists):
            self.begin_op()
            try:
                self.put_payload(self.entry_of(key), key, codec, payload)
                self.sync_if_due(sync_at)
            finally:
                self.end_op()
        else:
            self.put_payload(entry, key, codec, payload)
            if sync_at and self.dirty_count >= sync_at:
                self.sync_if_due(sync_at)
            elif not self.schedule.is_set:
                self.schedule.begin(self.store)
        return 0

    cdef int check_change(self, bytes key, object original) except -1:
        """Raise if the store cannot be written, or if no store has this object as a key."""
        if not self.writable:
            raise self.store.refuse_write()
        if key is None:
            raise KeyError(original)
        return 0

    cdef Entry existing(self, bytes key, object original):
        """Return the entry of an existing key. One that is read from disk is not in the cache. Raises KeyError."""
        cdef Entry entry = self.entry_of(key)
        cdef long long seq = 0
        cdef bytes raw
        if entry is None:
            raw = self.find_record(key, &seq)
            if raw is None:
                raise KeyError(original)
            return self.entry_from_record(key, seq, raw)
        if not entry.exists:
            raise KeyError(original)
        return entry

    cdef int delete(self, bytes key, object original, long long sync_at) except -1:
        cdef Entry entry
        cdef long long seq
        self.check_change(key, original)
        self.begin_op()
        try:
            entry = self.entry_of(key)
            if entry is not None and entry.disk_seq == UNKNOWN:
                self.resolve()
                entry = self.entries.get(key)
            if entry is None:
                seq = self.find_seq(key)
                if seq == ABSENT:
                    raise KeyError(original)
                entry = make_entry(key, seq, seq)
                self.adopt(entry)
            elif not entry.exists:
                raise KeyError(original)
            self.remove_entry(entry)
            self.sync_if_due(sync_at)
        finally:
            self.end_op()
        return 0

    cdef int remove_entry(self, Entry entry) except -1:
        """Delete a key whose seq on disk is known."""
        self.on_entry_removed(entry)
        self.remove_len_delta(entry)
        self.untrack_new(entry)
        self.last_yielded.key = None
        if entry.disk_seq >= 0:
            self.deleted.add(entry.disk_seq)
        entry.exists = False
        entry.relocated = False
        entry.seq = ABSENT
        entry.value = entry.payload = None
        entry.codec = NO_PAYLOAD
        entry.dirty = True
        if entry.disk_seq == ABSENT:
            del self.entries[entry.key]
            self.dirty_count -= entry.counts_as_dirty
        else:
            self.count_as_dirty(entry)
            self.add_len_delta(entry)
        return 0

    def move_to_end(self, bytes key, original, long long sync_at):
        """Move a key behind all others, as if it was deleted and added again with its value and its status."""
        cdef Entry entry
        self.check_change(key, original)
        self.begin_op()
        try:
            self.resolve()
            entry = self.existing(key, original)
            if not is_last(self, entry.seq):
                self.relocate(entry)
                self.sync_if_due(sync_at)
        finally:
            self.end_op()

    cdef int relocate(self, Entry entry) except -1:
        """Give the greatest seq to an existing key, whose seq is known. Only TaskCache has statuses to move."""
        cdef long long before = entry.seq
        cdef YieldedCopy copied
        if self.entry_of(entry.key) is not entry:
            self.adopt(entry)
        self.count_as_dirty(entry)
        self.untrack_new(entry)
        # Entries are in the order of their seqs, because records are appended in this order.
        del self.entries[entry.key]
        self.entries[entry.key] = entry
        entry.seq = self.store.allocate()
        entry.relocated = entry.disk_seq >= 0
        entry.dirty = True
        self.track_new(entry)
        self.last_yielded.key = None
        # A loop that has yielded a copy of the value can still save it.
        for item in self.running_copies():
            copied = item
            if copied.seq == before:
                copied.seq = entry.seq
        return 0

    def mark(self, bytes key, original, long long sync_at):
        """Mark a key dirty, so that the next sync writes its value even if it is unchanged."""
        cdef Entry entry
        self.check_change(key, original)
        self.begin_op()
        try:
            entry = self.existing(key, original)
            if self.entry_of(key) is not entry:
                self.adopt(entry)
            self.count_as_dirty(entry)
            if not self.copies:
                self.take_copy(entry, original)
            entry.dirty = True
            self.sync_if_due(sync_at)
        finally:
            self.end_op()

    # Copies that iterators yield

    cdef object copy_of_entry(self, Entry entry):
        """Return a copy of the value of an entry, which ``mark_dirty()`` does not save."""
        if entry.value is not None:
            return self.copy_of(entry, YieldedCopy.__new__(YieldedCopy))
        return self.decode(entry.key, entry.seq, entry.codec, entry.payload)

    cdef object copy_of(self, Entry entry, YieldedCopy copied):
        """Return a copy of a value that ``pod[key]`` returned before, with the caller's changes since."""
        copied.watched = entry.value
        try:
            copied.payload = self.serialise(entry, &copied.codec)
        except (TypeError, ValueError):
            # The value cannot be stored, and the next sync raises. Reading it is no error.
            copied.codec = UNSTORABLE
        if copied.codec == UNSTORABLE:
            try:
                return deepcopy(copied.watched)
            except Exception as error:
                raise UnstorableValueError(
                    f"the value of key {describe(self.key_of(entry.key))} was changed to something that can be neither "
                    f"stored nor copied: {error}. Change the value, or revert()"
                ) from error
        return self.decode(entry.key, entry.seq, copied.codec, copied.payload)

    cdef bint is_changed(self, Entry entry, YieldedCopy copied) except -1:
        """Return whether the caller has changed a copy."""
        cdef int codec = 0
        try:
            return self.dump(copied.value, &codec) != copied.payload or codec != copied.codec
        except (TypeError, ValueError):
            return copied.codec != UNSTORABLE

    cdef int take_copy(self, Entry entry, object original) except -1:
        """Make the copy that an iterator yielded the value of its key, if the caller has changed it."""
        cdef YieldedCopy copied
        cdef list found
        if entry.seq < 0:
            self.resolve()
        found = [one for one in self.running_copies() if self.may_be_saved(one, entry, original)]
        if not found:
            return 0
        # The caller has the copy, and may change the status in it.
        entry.status_read = 0
        # Keep the old value until the entry is complete, because its finalizers may run any code.
        _before = entry.value
        if entry.value is None and len(found) == 1 and found[0] is self.last_yielded.copied:
            entry.value = self.last_yielded.copied.value
            return 0
        for item in found:
            copied = item
            if self.is_changed(entry, copied):
                entry.value = copied.value
                return 0
        if entry.value is None:
            # Watch the copy, because the caller may change it later.
            copied = found[0]
            entry.value = copied.value
        return 0

    cdef list running_copies(self):
        """Return the current copies of all iterators: the last one that was yielded, then by iterator, latest first."""
        cdef YieldedCopy last = self.last_yielded.copied, copied
        cdef list found = [] if last is None else [last]
        if len(self.loops) > 1 or last is None:
            for reference in reversed(self.loops):
                loop = reference()
                if loop is not None:
                    copied = (<ValueLoop?>loop).copied
                    if copied is not None and copied is not last:
                        found.append(copied)
        return found

    cdef bint may_be_saved(self, YieldedCopy copied, Entry entry, object original) except -1:
        """Return whether a copy belongs to this key, and nothing was assigned to the key since."""
        if copied.generation != self.copy_generation or copied.seq != entry.seq or copied.key != original:
            return False
        return (entry.value is not None and entry.value is copied.watched) or (
            entry.payload == copied.payload and entry.codec == copied.codec)

    # Syncing

    cdef int sync_if_due(self, long long sync_at) except -1:
        """Sync if enough keys are dirty. ``sync_at`` is 0 for an instance on hold."""
        if not self.schedule.is_set and self.pending():
            self.schedule.begin(self.store)
        if sync_at and self.pending() >= sync_at:
            self.sync_entries(self.store.flushes_each_sync, None, None, True)
        return 0

    cdef int schedule_sync(self) except -1:
        """Let the background thread sync after ``sync_every`` seconds, because a value was handed out.

        Raises no kept error, because the caller only reads.
        """
        if not self.schedule.is_set and self.schedule.failure is None:
            self.schedule.begin(self.store)
        return 0

    def join_schedule(self, handle):
        """Count in an instance, whose ``sync_every`` may be the smallest."""
        self.schedule.join(handle)
        if self.schedule.interval and not self.schedule.due and self.schedule.failure is None and self.has_changes():
            # They were made while no instance on the cache had a time.
            self.schedule.begin(self.store)

    def update_schedule(self):
        """Find out again which ``sync_every`` is the smallest, because an instance was closed."""
        self.schedule.update()

    def restart_schedule(self):
        """Let the next change wake the background thread, which a fork has ended."""
        if self.schedule.interval:
            self.schedule.is_set = False

    @property
    def sync_due(self):
        """When the background thread shall call ``sync_when_due()``, in seconds of the monotonic clock; 0 for never."""
        return self.schedule.due

    def sync_when_due(self, bint at_once=False):
        """Sync if the time has come, or ``at_once`` if a sync is scheduled at all.

        The caller is in no operation and holds the store's lock, so no other thread is in one. An error is kept for
        the next write. A value that cannot be stored at this moment, because the program is changing it, is left to the
        next sync.
        """
        cdef SyncSchedule schedule = self.schedule
        cdef double began
        if not schedule.due or (schedule.due > monotonic() and not at_once):
            return
        if self.closed or not self.writable or not self.has_changes():
            schedule.clear()
        elif schedule.is_held():
            schedule.repeat(0)
        elif self.synced_at > schedule.changed_at and self.synced_at + schedule.interval > monotonic() \
                and schedule.failure is None and not at_once:
            # A sync by count came in between, and the first change after it is younger.
            schedule.changed_at = self.synced_at
            schedule.due = self.synced_at + schedule.interval
        else:
            began = thread_cpu_time()
            try:
                self.sync_entries(self.store.flushes_each_sync, None, None, False)
            except UnstorableValueError:
                pass
            except Exception as error:
                schedule.fail(error)
                return
            if self.entries or self.pinned.by_key:
                schedule.repeat(thread_cpu_time() - began)
            else:
                schedule.clear()

    cpdef int sync(self, bint flush) except -1:
        """Write all dirty entries to disk in one transaction. With ``flush`` they then survive a power cut."""
        return self.sync_entries(flush, None, None, False)

    def finish(self):
        """Sync, and refuse later operations, also of a thread that waits for the lock."""
        # Do not use begin_op(), because it raises if the files were removed, and a reader must still close the store.
        self.store.lock.acquire()
        self.busy += 1
        try:
            self.sync(True)
            self.forget_entries()
            self.disk_count = -1
            self.closed = True
        finally:
            self.busy -= 1
            self.store.lock.release()

    def sync_one(self, bytes key, original):
        """Write one key. Raises KeyError if it neither exists nor was deleted since the last sync."""
        cdef Entry entry
        cdef long long seq = ABSENT
        self.check_change(key, original)
        self.begin_op()
        try:
            self.resolve()
            entry = self.entry_of(key)
            if entry is None:
                seq = self.find_seq(key)
                if seq == ABSENT:
                    raise KeyError(original)
                seqs = {seq}
            else:
                if entry.pinned:
                    self.unpin(entry)
                seqs = {entry.disk_seq, entry.seq}
            self.sync_entries(True, entry, seqs, False)
        finally:
            self.end_op()

    cdef bint has_changes(self) except -1:
        """Return whether a sync has anything to compare or to write."""
        return len(self.entries) > 0 or len(self.pinned.by_key) > 0 or self.status_differs()

    cdef int sync_entries(self, bint flush, Entry only, set seqs, bint automatic) except -1:
        """Write all dirty entries. With ``seqs``, write only the entry ``only`` and the statuses at these seqs."""
        # What the sync drops is freed at the end, because finalizers may use the store.
        cdef list failures = [], dropped = []
        cdef bint single = seqs is not None
        if not self.writable or self.closed:
            return 0
        self.begin_op()
        try:
            if self.store.images is None:
                self.write_alone(only, seqs, automatic, failures, dropped)
            else:
                self.write_entries(only, seqs, automatic, failures, dropped)
            if flush:
                self.store.flush()
            if not single:
                self.synced_at = monotonic()
                self.schedule.failure = None
        finally:
            self.end_op()
        if failures:
            raise unstorable(failures)
        return 0

    cdef int write_alone(self, Entry only, set seqs, bint automatic, list failures, list dropped) except -1:
        """Call ``write_entries()`` for a private store, whose sync runs Python code.

        A signal handler could use the store there, and its changes would be dropped with those that are written. So
        signals wait until the end. ``begin_op()`` refuses what a finalizer does.
        """
        cdef HeldSignals signals = HeldSignals.__new__(HeldSignals)
        signals.hold()
        self.is_writing = True
        try:
            self.write_entries(only, seqs, automatic, failures, dropped)
        finally:
            self.is_writing = False
            signals.release()
        return 0

    cdef int write_entries(self, Entry only, set seqs, bint automatic, list failures, list dropped) except -1:
        """Do the work of ``sync_entries()`` up to the flush. Values that cannot be stored are added to ``failures``."""
        cdef Entry entry
        cdef int codec = 0
        cdef bytes payload
        cdef list changes = []
        cdef set failed = set(), skip = set()
        cdef bint single = seqs is not None, is_changed = False
        dropped.append(self.entries)
        if automatic:
            for item in self.pinned.remove_released(dropped):
                self.entries[(<Entry>item).key] = item
        elif not single:
            self.unpin_all()
        for item in ([only] if only is not None else [] if single else list(self.entries.values())):
            entry = item
            if entry.value is not None:
                # Test for references before the value is encoded. A caller that changes the value after the encoding
                # must reference it already now, because no value is returned to a caller in between. In the other
                # order, a change between the two would be lost.
                entry.borrowed = is_referenced(<PyObject*>entry.value, 0)
                # In a tracker, serialise() also reads the status from the value. A comparison is wasted on a value that
                # was changed, and callers change either many values of a sync or few.
                if self.tracks or is_changed or not is_json_of(entry.codec, entry.payload, entry.value):
                    try:
                        payload = self.serialise(entry, &codec)
                    except (TypeError, ValueError, RuntimeError) as error:
                        # A RuntimeError comes if another thread adds a key to a dict meanwhile.
                        failures.append((self.key_of(entry.key), error))
                        failed.add(entry)
                        continue
                    is_changed = codec != entry.codec or payload != entry.payload
                    if is_changed:
                        entry.codec = codec
                        entry.payload = payload
                        entry.dirty = True
            if entry.dirty:
                changes.append(entry)
        if failed:
            self.resolve()
            for item in failed:
                skip |= {(<Entry>item).seq, (<Entry>item).disk_seq}
        if changes or self.status_differs():
            self.store.write_sync(
                lambda txn: self.write_changes(txn, changes, seqs, skip),
                0 if single else count_places(changes) + self.status_places(), count_bytes(changes),
            )
            self.status_written(seqs, skip)
            if single:
                if not failures:
                    self.one_written(only)
            else:
                self.written(changes, failed)
            self.disk_version = self.store.disk_version
            self.disk_count = -1
        elif not single:
            self.written(changes, failed)
        return 0

    cdef int write_changes(self, object txn, list changes, set seqs, set skip) except -1:
        """Write all changes of a sync in one transaction.

        This may run again after a failed transaction. So in memory it changes only facts that hold in either case.
        """
        cdef Entry entry
        cdef long long stored
        # In a block that syncs more than once, a value may be written twice in one transaction.
        cdef bint again = self.store.images is not None and self.store.wrote
        # Read this before the last records are deleted, because it may be derived from the largest seq on disk.
        cdef long long next_seq = self.store.next_free()
        cdef bint deleted
        for item, raw in insert_keys(self.store, txn, changes):
            entry = item
            if raw is None:
                self.find_record(entry.key, &stored)
            else:
                stored = unpack_seq(self.store, raw)
                self.untrack_new(entry)
            entry.disk_seq = entry.seq = stored
        if changes:
            self.store.wrote = True
            if self.store.images is not None:
                self.record_before_images(txn, changes)
        deleted = write_records(self.store, txn, changes, again)
        self.write_status(txn, seqs, skip)
        if deleted:
            # Seqs only increase, also after the last records were deleted, because an iterator may have yielded them.
            txn.put(b"next", pack(max(next_seq, self.store.next_seq)), db=self.store.meta)
        return 0

    cdef int record_before_images(self, object txn, list changes) except -1:
        """Record the before-images of keys that are about to change in the undo log, for revert().

        The image of a seq is its status and its record. It is the status alone if only the status was changed, and
        empty if the seq is new.
        """
        cdef Entry entry
        cdef BeforeImages images = self.store.images
        for item in changes:
            entry = item
            if entry.disk_seq >= 0 and not images.has_record(entry.disk_seq):
                images.note_record(entry.disk_seq, self.status_on_disk(txn, entry.disk_seq),
                                   txn.get(pack(entry.disk_seq), b"", self.store.values))
            if entry.exists and entry.seq != entry.disk_seq:
                images.note_added(entry.seq)
        return 0

    cdef int one_written(self, Entry entry) except -1:
        """Mark an entry as clean, because it is on disk now. If it has a value, it is only watched afterwards."""
        if entry is not None:
            self.remove_len_delta(entry)
            self.untrack_new(entry)
            if entry.dirty:
                self.cache_version += 1
            if entry.exists and entry.seq != entry.disk_seq:
                # Another cache (clone=False) may have added later records, which were deleted here.
                self.runs.remove(entry.seq)
            entry.disk_seq = entry.seq if entry.exists else ABSENT
            entry.dirty = entry.relocated = entry.status_dirty = False
            self.dirty_count -= entry.counts_as_dirty
            entry.counts_as_dirty = False
            if entry.value is None:
                del self.entries[entry.key]
        return 0

    cdef int written(self, list changes, set failed) except -1:
        """Mark all entries except those that failed as clean, because they are on disk now, and drop them.

        Values that a caller still references stay watched, because it may be about to change them, as in
        ``pod[k].append(f(pod))``. Each sync compares the latest of these values. The others are pinned.
        """
        cdef Entry entry
        cdef dict entries = self.entries
        cdef long long left = 0
        if changes:
            self.cache_version += 1
        kept = []
        older = []
        for item in reversed(list(entries.values())):
            entry = item
            if failed and entry in failed:
                kept.append(entry)
                left += entry.counts_as_dirty
            elif entry.exists and entry.value is not None and entry.borrowed:
                entry.disk_seq = entry.seq
                entry.dirty = entry.relocated = entry.counts_as_dirty = entry.status_dirty = False
                (kept if len(kept) < self.watched_by_each else older).append(entry)
        kept.reverse()
        self.entries = {(<Entry>item).key: item for item in kept}
        self.pinned.add(older)
        self.borrowed = set()
        self.unresolved = []
        self.forget_new()
        self.forget_deleted()
        self.len_delta = 0
        self.dirty_count = left
        for item in kept:
            entry = item
            self.add_len_delta(entry)
            if entry in failed and entry.exists and (entry.disk_seq < 0 or entry.relocated):
                self.track_new(entry)
        return 0

    cpdef int revert(self) except -1:
        """Drop every change since the last sync. Reads nothing, because the transaction may have failed."""
        if not self.writable:
            return 0
        self.store.lock.acquire()
        try:
            self.forget_entries()
            self.forget_status()
        finally:
            self.store.lock.release()
        return 0

    cdef int forget_entries(self) except -1:
        # Keep the entries until the cache is consistent, because finalizers of their values may run any code.
        _entries, _pinned = self.entries, self.pinned.by_key
        self.entries = {}
        self.pinned.by_key = {}
        self.unresolved = []
        self.forget_new()
        self.forget_deleted()
        self.borrowed = set()
        self.len_delta = self.dirty_count = 0
        self.cache_version += 1
        self.last_yielded.key = self.last_yielded.copied = None
        self.copy_generation += 1
        self.pinned.clear_queue()
        return 0

    # After another cache has written

    cdef int reload(self) except -1:
        """Look up all keys in the cache on disk again, because another cache has written the store."""
        cdef Entry entry
        cdef list held = self.drop_unchanged()
        self.forget_deleted()
        self.disk_version = self.store.disk_version
        self.snapshot_id = -1
        self.disk_count = -1
        self.len_delta = 0
        self.cache_version += 1
        self.last_yielded.key = None
        self.unresolved = list(self.entries.values())
        for item in self.unresolved:
            entry = item
            entry.disk_seq = UNKNOWN
        self.resolve()
        return self.watch_again(held)

    cdef list drop_unchanged(self):
        """Stop watching unchanged values, because the disk may have other values now.

        All other entries become dirty, because the disk may no longer have their keys. Returns the dropped entries
        whose values callers still reference (see watch_again).
        """
        cdef Entry entry
        cdef int codec = 0
        cdef list held = []
        self.unpin_all()
        for item in list(self.entries.values()):
            entry = item
            if entry.value is None or entry.dirty:
                continue
            try:
                payload = self.serialise(entry, &codec)
            except (TypeError, ValueError):
                continue
            if payload != entry.payload or codec != entry.codec:
                entry.dirty = True
                self.count_as_dirty(entry)
            elif not entry.status_dirty:
                if is_referenced(<PyObject*>entry.value, 0):
                    held.append(entry)
                self.remove_len_delta(entry)
                self.drop(entry)
        return held

    cdef int watch_again(self, list entries) except -1:
        """Watch referenced values again if the disk still has the records from which they were read."""
        cdef Entry entry, found
        cdef long long seq = 0
        for item in entries:
            entry = item
            raw = self.find_record(entry.key, &seq)
            if raw is None or entry.key in self.entries:
                continue
            found = self.entry_from_record(entry.key, seq, raw)
            if found.payload == entry.payload and found.codec == entry.codec:
                found.value = entry.value
                self.write_status_to_value(found.value, seq)
                self.entries[found.key] = found
                self.add_len_delta(found)
        return 0

    # Tests

    def check(self):
        """Raise AssertionError if the cache contradicts itself or the disk."""
        cdef Entry entry
        cdef long long seq = 0, len_delta = 0, dirty_count = 0
        self.begin_op()
        try:
            self.resolve()
            for key, item in [*self.pinned.by_key.items(), *self.entries.items()]:
                entry = item
                ensure(entry.pinned == (key in self.pinned.by_key), "an entry is wrong about whether it is pinned")
                ensure(not entry.pinned or (entry.exists and entry.value is not None and not entry.counts_as_dirty
                                            and not entry.status_dirty and entry.seq == entry.disk_seq),
                       "a pinned entry is not clean")
                dirty_count += entry.counts_as_dirty
                len_delta += entry.exists - (entry.disk_seq >= 0)
                on_disk = self.find_record(key, &seq)
                ensure(entry.key == key, "an entry is stored under another key")
                ensure(entry.disk_seq == (seq if on_disk is not None else ABSENT), "an entry is wrong about the disk")
                ensure(entry.exists or entry.dirty, "a deletion is not dirty")
                ensure(entry.counts_as_dirty or not entry.dirty, "a dirty entry does not count")
                is_new = entry.exists and (entry.disk_seq < 0 or entry.relocated)
                ensure(is_new == (self.new_entries.get(entry.seq) is entry), "a new entry is not tracked")
            ensure(len_delta == self.len_delta, "the length is wrong")
            ensure(dirty_count == self.dirty_count, "the count of dirty entries is wrong")
            ensure(all(number in self.new_seqs for number in self.new_entries), "a new entry is not in order")
            ensure(self.new_seqs == sorted(self.new_seqs), "new entries are out of order")
        finally:
            self.end_op()


cdef bint is_last(WriteCache cache, long long seq) except -1:
    """Return whether no key follows the one at a seq. Deleted keys may, and numbers that no key has.

    The caller holds the lock, and no entry is unresolved.
    """
    cdef StoreBase store = cache.store
    cdef DeletedStretch stretch
    cdef long long found = seq, first
    if seq == store.next_free() - 1:
        return True
    # A relocated key has its new seq here, so its record on disk is not reached below.
    if cache.new_entries and cache.new_seqs[len(cache.new_seqs) - 1] > seq:
        return False
    stretch = DeletedStretch(cache.runs, True)
    cursor = store.reader().cursor(store.values)
    there = cursor.last()
    while there:
        found = unpack_seq(store, cursor.key())
        if found <= seq or found not in cache.deleted:
            break
        first = stretch.skip(found)
        if first != found:
            cursor.set_range(pack(first))
        there = cursor.prev()
    stretch.stop()
    return not there or found <= seq


cdef int ensure(bint holds, str what) except -1:
    if not holds:
        raise AssertionError(what)
    return 0


cdef object unstorable(list failures):
    """Return one error for all values that a sync could not write."""
    key, error = failures[0]
    more = f" (and {len(failures) - 1} more: {', '.join(describe(key) for key, _ in failures[1:6])}" \
           f"{', ...' if len(failures) > 6 else ''})" if len(failures) > 1 else ""
    result = UnstorableValueError(
        f"the value of key {describe(key)} was changed to something that cannot be stored: {error}{more}; "
        f"everything else was saved. Change the value and sync again, or revert()"
    )
    result.__cause__ = error
    return result
