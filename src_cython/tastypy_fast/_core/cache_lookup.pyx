"""Finding keys, in the cache and on disk, and what every operation on a store begins and ends with.

Who may touch what: every method that reads LMDB or changes more than one entry holds the environment's
lock (``enter``, ``leave``). The short paths of reading and assigning a cached key run without: they call no
Python code, so the interpreter's own lock makes them one step, and they give way when ``busy`` says that
somebody is in a locked section.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcmp, memcpy

from tastypy_fast._core.cache_entry cimport ABSENT, UNKNOWN, Entry, make_entry, pack
from tastypy_fast._core.key_codec cimport decode_key, describe, index_key, is_digest
from tastypy_fast._core.record_codec cimport Record, dump_value, load_value, parse_record, record_payload
from tastypy_fast._core.store_base cimport StoreBase

from tastypy_fast.exceptions import CalledClosedTrackerError, PersistentOrderedDictIntegrityError

__all__ = ["Lookup"]


cdef class Lookup:
    """The memory that instances on one path share, as far as finding goes."""

    def __init__(self, StoreBase store not None):
        self.store = store
        self.forget()

    def forget(self):
        """Drop everything that is in memory, and take up the environment as it is now (open, fork)."""
        self.entries = {}
        self.unresolved = []
        self.new_seqs = []
        self.new_entries = {}
        self.len_delta = 0
        self.disk_count = -1
        self.dirty_count = 0
        self.disk_version = self.store.disk_version
        self.busy = 0
        self.writable = self.store.writable
        self.recent_key = self.recent = None
        self.recent_order = ABSENT
        self.loops = []
        self.era += 1
        self.passing = None
        self.borrowed = set()
        self.cache_version += 1
        self.snapshot_id = -1
        self.forget_status()

    # Locking

    cdef int begin_op(self) except -1:
        self.store.lock.acquire()
        self.busy += 1
        if self.closed or self.is_stale() or self.store.snapshot is None or self.store.transient:
            try:
                if self.closed:
                    raise CalledClosedTrackerError("this store was closed by another thread; open it again to use it")
                if self.store.transient and self.store.snapshot is None:
                    self.store.look_at_files()
                if self.is_stale():
                    if self.store.wal is not None:
                        # (an interrupt may have come between a commit and the end of the snapshot before it)
                        self.store.end_reading()
                    self.reload()
                # Here and not when it is needed first: it is Python, where a signal may raise an exception, and
                # what comes after is not. (And in a forked child it opens the files anew, with other handles.)
                self.store.reader()
                if self.store.transient and self.busy == 1:
                    self.on_new_snapshot()
            except BaseException:
                self.end_op()
                raise
        return 0

    cdef int end_op(self) except -1:
        self.busy -= 1
        if self.busy == 0:
            if self.store.transient:
                self.store.end_snapshot()
        self.store.lock.release()
        return 0

    cdef int on_new_snapshot(self) except -1:
        """A new snapshot of a store that others write: what was kept from the one before may not hold."""
        cdef long long number = self.store.snapshot.id()
        if number != self.snapshot_id:
            self.snapshot_id = number
            self.disk_count = -1
            self.forget_status()
        return 0

    cdef bint is_stale(self) noexcept:
        """Whether the store was written, or may have been, since this cache last asked the disk."""
        return self.disk_version != self.store.disk_version

    cdef long long pending(self) except -1:
        """How many keys count towards sync_at."""
        return self.dirty_count

    # What a tracker does differently

    cdef object borrow(self, Entry entry):
        """The value of an entry, as the caller gets it. ``copies``: it is the caller's own, and never saved."""
        if self.copies:
            return self.decode(entry.key, entry.seq, entry.codec, entry.payload)
        if entry.value is None:
            value = self.decode(entry.key, entry.seq, entry.codec, entry.payload)
            if type(value) is not dict and type(value) is not list:
                return value
            entry.value = value
        return entry.value

    cdef object decode(self, bytes key, long long seq, int codec, bytes payload):
        try:
            return load_value(codec, payload)
        except PersistentOrderedDictIntegrityError as error:
            raise self.damaged(self.key_of(key), error) from error

    cdef bytes serialise(self, Entry entry, int* codec):
        """The JSON of a value that was handed out and may have been changed since."""
        return self.dump(entry.value, codec)

    cdef bytes dump(self, object value, int* codec):
        return dump_value(value, codec)

    cdef int show_status(self, object value, long long seq) except -1:
        """Have a task's dict say what its status is."""
        return 0

    cdef int entry_made(self, Entry entry) except -1:
        return 0

    cdef int entry_gone(self, Entry entry) except -1:
        return 0

    cdef int write_status(self, object txn, set only, set skip) except -1:
        return 0

    cdef int status_written(self, set only, set skip) except -1:
        return 0

    cdef bytes status_on_disk(self, object txn, long long seq):
        return bytes(4)

    cdef int forget_status(self) except -1:
        return 0

    cdef list dirty_status_seqs(self):
        return []

    cdef int reload(self) except -1:
        """The store was written through another cache: what was known of the disk is not known any more."""
        raise NotImplementedError

    # Finding

    cdef object damaged(self, object key, object what):
        return PersistentOrderedDictIntegrityError(
            f"the store at {self.store.path} is damaged at key {describe(key)}: {what}"
        )

    cdef object key_of(self, bytes key):
        try:
            return decode_key(key)
        except PersistentOrderedDictIntegrityError as error:
            raise PersistentOrderedDictIntegrityError(
                f"the store at {self.store.path} is damaged: {error}"
            ) from error

    cdef long long unpack(self, object raw) except -1:
        """The order number in an index entry."""
        cdef long long number = -1
        if PyBytes_GET_SIZE(raw) == 8:
            memcpy(&number, PyBytes_AS_STRING(raw), 8)
        if number < 0:
            raise self.damaged("?", "an index entry holds no order number")
        return number

    cdef bytes record_at(self, long long seq):
        return self.get(pack(seq), self.store.values)

    cdef object get(self, bytes key, object database):
        """One look into LMDB."""
        try:
            return self.store.reader().get(key, None, database)
        except Exception as error:
            raise self.store.translated(error) from error

    cdef dict get_many(self, list keys, object database):
        try:
            return dict(self.store.reader().cursor(database).getmulti(keys))
        except Exception as error:
            raise self.store.translated(error) from error

    cdef bint is_passing(self, bytes key) except -1:
        """Whether a loop has just handed this key out, so that its record need not be looked for. (As long as the rest
        of the loop's chunk holds; the caller holds the lock, and has found no entry.)"""
        cdef Record record
        if self.passing is None or self.passing_epoch != self.cache_version or (
                self.store.transient and self.passing_seen != self.snapshot_id):
            return False
        parse_record(<const unsigned char*>PyBytes_AS_STRING(self.passing), PyBytes_GET_SIZE(self.passing), &record)
        return record.key_size == PyBytes_GET_SIZE(key) and not memcmp(record.key, PyBytes_AS_STRING(key),
                                                                       record.key_size)

    cdef bytes find_record(self, bytes key, long long* seq):
        """The record of a key on disk, or None. The caller holds the lock."""
        cdef Record record
        cdef bytes raw
        if self.is_passing(key):
            seq[0] = self.passing_order
            return self.passing
        number = self.get(index_key(key), self.store.order)
        if number is None:
            return None
        seq[0] = self.unpack(number)
        raw = self.get(number, self.store.values)
        if raw is None:
            raise self.damaged(self.key_of(key), "the index names a record that is not there")
        try:
            parse_record(<const unsigned char*>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw), &record)
        except PersistentOrderedDictIntegrityError as error:
            raise self.damaged(self.key_of(key), error) from error
        if record.key[:record.key_size] != key:
            raise self.damaged(self.key_of(key), "the index names the record of another key")
        return raw

    cdef long long find_seq(self, bytes key) except? -3:
        """The order number of a key, cache and disk together; ABSENT when there is none."""
        cdef Entry entry = self.entries.get(key)
        cdef long long seq = ABSENT
        cdef bytes index
        if entry is not None:
            if entry.exists and entry.seq == UNKNOWN:
                self.resolve()
                entry = self.entries[key]
            return entry.seq if entry.exists else ABSENT
        if self.is_passing(key):
            return self.passing_order
        index = index_key(key)
        if is_digest(index):
            return seq if self.find_record(key, &seq) is not None else ABSENT
        number = self.get(index, self.store.order)
        return ABSENT if number is None else self.unpack(number)

    cdef list find_seqs(self, list keys):
        """locate() for many keys with one call to LMDB."""
        cdef list seqs = []
        cdef list wanted = []
        cdef Entry entry
        cdef bytes key
        cdef dict found
        if self.unresolved:
            self.resolve()
        for key in keys:
            if key not in self.entries and len(key) <= 511:
                wanted.append(key)
        found = self.get_many(wanted, self.store.order)
        for key in keys:
            entry = self.entries.get(key)
            if entry is not None:
                seqs.append(entry.seq if entry.exists else ABSENT)
            elif len(key) > 511:
                seqs.append(self.find_seq(key))
            else:
                number = found.get(key)
                seqs.append(ABSENT if number is None else self.unpack(number))
        return seqs

    cdef int resolve(self) except -1:
        """Find out which of the blindly assigned keys the disk has, and give the others their numbers."""
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
                self.find_record(entry.key, &seq)  # the full keys are compared there
            entry.disk_seq = ABSENT if number is None else self.unpack(number)
        self.unresolved = []
        for position in range(len(unresolved)):
            entry = unresolved[position]
            if entry.exists:
                if entry.disk_seq >= 0 and (not entry.relocated or entry.disk_seq == entry.seq):
                    # (moved, and on disk with its new number: an exception came right after the commit)
                    self.untrack_new(entry)
                    entry.seq = entry.disk_seq
                    entry.relocated = False
                elif self.new_entries.get(entry.seq) is not entry:
                    # New; or not on disk any more, as another cache (clone=False) has deleted it.
                    entry.seq = self.store.allocate()
                    self.track_new(entry)
            elif entry.disk_seq == ABSENT:
                # Another cache on this store (clone=False) has deleted it too.
                self.drop(entry)
                continue
            if entry.exists and entry.disk_seq == ABSENT and not entry.dirty and not entry.relocated:
                # Only read here, and deleted through another cache since.
                self.drop(entry)
                continue
            self.add_len_delta(entry)
        return 0

    cdef int drop(self, Entry entry) except -1:
        self.untrack_new(entry)
        self.entries.pop(entry.key, None)
        self.dirty_count -= entry.counts_as_dirty
        return 0

    cdef int add_len_delta(self, Entry entry) except -1:
        """What this entry adds to len(): its fate in memory against that on disk."""
        self.len_delta += entry.exists - (entry.disk_seq >= 0)
        return 0

    cdef int remove_len_delta(self, Entry entry) except -1:
        if entry.disk_seq != UNKNOWN:
            self.len_delta -= entry.exists - (entry.disk_seq >= 0)
        return 0

    cdef int track_new(self, Entry entry) except -1:
        self.new_entries[entry.seq] = entry
        self.new_seqs.append(entry.seq)
        return 0

    cdef int untrack_new(self, Entry entry) except -1:
        if self.new_entries and entry.seq in self.new_entries:
            del self.new_entries[entry.seq]
            if len(self.new_seqs) > 2 * len(self.new_entries) + 100:
                self.new_seqs = sorted(self.new_entries)
        return 0

    cdef Entry entry_from_record(self, bytes key, long long seq, bytes raw):
        """An entry for a record as it is on disk; not in the cache yet."""
        cdef Record record
        cdef Entry entry
        entry = make_entry(key, seq, seq)
        try:
            parse_record(<const unsigned char*>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw), &record)
            entry.codec = record.codec
            entry.payload = record_payload(&record)
        except PersistentOrderedDictIntegrityError as error:
            raise self.damaged(self.key_of(key), error) from error
        return entry
