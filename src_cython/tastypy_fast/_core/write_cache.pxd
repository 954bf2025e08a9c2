from libc.stdint cimport uint32_t

from tastypy_fast._core.cache_entry cimport Entry, LastYielded, YieldedCopy
from tastypy_fast._core.deleted_runs cimport DeletedRuns
from tastypy_fast._core.pinned_entries cimport PinnedEntries
from tastypy_fast._core.record_codec cimport Record
from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.sync_schedule cimport SyncSchedule

cdef enum:
    # So many keys are looked up one by one.
    FEW = 8

cdef class WriteCache:
    cdef readonly StoreBase store
    # Increases whenever a sync or a revert makes the chunks of iterators outdated, so that they seek again.
    cdef readonly long long cache_version
    # The entries that differ from the disk, or may differ, by encoded key, in the order of their first change.
    cdef dict entries
    cdef PinnedEntries pinned
    # Entries that were assigned without a lookup, so it is not known yet whether the disk has their keys.
    cdef list unresolved
    # Entries whose seqs are not on disk yet, by seq. ``new_seqs`` has these seqs in order, and some that are outdated.
    # The last one is not outdated, and neither is that at ``new_start``, before which all are.
    cdef dict new_entries
    cdef list new_seqs
    cdef Py_ssize_t new_start
    # Seqs of records on disk that are deleted or relocated in memory, so that iterators skip them, and the runs of
    # these. Some may be missing, because iterators check each entry.
    cdef set deleted
    cdef DeletedRuns runs
    # How many records and new seqs iterators have read, for tests.
    cdef readonly long long steps
    # How many keys the store has more than the disk, and how many keys are on disk (-1: not known).
    cdef long long len_delta
    cdef long long disk_count
    # How many entries count towards sync_at.
    cdef long long dirty_count
    # The store's disk_version that this cache knows, and the snapshot that it read last.
    cdef long long disk_version
    cdef readonly long long snapshot_id
    # The number of open operations of all threads. The fast paths are not used while one is open.
    cdef int busy
    # Whether a sync of a private store is writing the entries.
    cdef bint is_writing
    cdef readonly bint writable
    # When the background thread syncs this cache, and when it was synced last.
    cdef SyncSchedule schedule
    cdef double synced_at
    # Whether values are tasks, whose statuses must be read from their dicts.
    cdef readonly bint tracks
    cdef public bint writes_through
    cdef public bint copies
    cdef readonly bint closed
    # Every sync compares at most this many of the latest values that callers still reference.
    cdef public Py_ssize_t watched_by_each
    # Entries of tasks that ``tracker[key]`` returned since the statuses were last read from their dicts.
    cdef set borrowed
    cdef LastYielded last_yielded
    # Weak references to the running iterators over values.
    cdef list loops
    # Increases when copies that were yielded before must not be saved any more.
    cdef long long copy_generation
    # The status that decode() wrote into a dict last.
    cdef uint32_t decoded_status

    # The key that was encoded last, if it is a str, and its encoding, because a program often uses a key again at once.
    cdef str last_key
    cdef bytes last_encoded

    # Operations
    cdef int begin_op(self) except -1
    cdef int end_op(self) except -1
    cdef int on_new_snapshot(self) except -1
    cdef bint is_stale(self) noexcept
    cdef long long pending(self) except -1
    # Hooks that TaskCache overrides
    cdef object decode(self, bytes key, long long seq, int codec, bytes payload)
    cdef uint32_t status_of_seq(self, long long seq) except? 0xffffffff
    cdef object decode_with(self, bytes key, uint32_t status, int codec, bytes payload)
    cdef bytes serialise(self, Entry entry, int* codec)
    cdef bytes dump(self, object value, int* codec)
    cdef int write_status_to_value(self, object value, long long seq) except -1
    cdef int on_entry_added(self, Entry entry) except -1
    cdef int on_entry_removed(self, Entry entry) except -1
    cdef bint status_differs(self) except -1
    cdef Py_ssize_t status_places(self) except -1
    cdef int write_status(self, object txn, set only, set skip) except -1
    cdef int status_written(self, set only, set skip) except -1
    cdef uint32_t status_on_disk(self, object txn, long long seq) except? 0xffffffff
    cdef int forget_status(self) except -1
    cdef list dirty_status_seqs(self)
    # Finding
    cdef object damaged(self, object key, object what)
    cdef object key_of(self, bytes key)
    cdef object get(self, bytes key, object database)
    cdef dict get_many(self, list keys, object database)
    cdef bytes record_at(self, long long seq)
    cdef Entry entry_of(self, bytes key)
    cdef bint is_last_yielded(self, bytes key) except -1
    cdef bytes find_record(self, bytes key, long long* seq)
    cdef int parse_found(self, bytes key, bytes raw, Record* record) except -1
    cdef bytes wanted(self, object key)
    cdef int remember_key(self, object key, bytes encoded) except -1
    cdef long long find_seq(self, bytes key) except? -3
    cdef long long seq_on_disk(self, bytes key) except? -3
    cdef list find_seqs(self, list keys)
    cdef Entry entry_from_record(self, bytes key, long long seq, bytes record)
    cdef bytes payload_in(self, bytes key, bytes raw, int* codec)
    cdef object decode_record(self, bytes key, long long seq, bytes raw)
    cdef int resolve(self) except -1
    # Accounting
    cdef int add_len_delta(self, Entry entry) except -1
    cdef int remove_len_delta(self, Entry entry) except -1
    cdef int track_new(self, Entry entry) except -1
    cdef int untrack_new(self, Entry entry) except -1
    cdef int forget_new(self) except -1
    cdef int forget_deleted(self) except -1
    cdef int count_as_dirty(self, Entry entry) except -1
    cdef int adopt(self, Entry entry) except -1
    cdef int drop(self, Entry entry) except -1
    cdef int unpin(self, Entry entry) except -1
    cdef int unpin_all(self) except -1
    # Reading and changing
    cdef object borrow(self, Entry entry)
    cdef object fetch(self, bytes key, object original, long long sync_at)
    cdef bint contains(self, bytes key) except -1
    cdef long long length(self) except -1
    cdef Entry put_payload(self, Entry entry, bytes key, int codec, bytes payload)
    cdef Entry put_new(self, bytes key, int codec, bytes payload)
    cdef int put(self, bytes key, object value, long long sync_at) except -1
    cdef int delete(self, bytes key, object original, long long sync_at) except -1
    cdef int check_change(self, bytes key, object original) except -1
    cdef Entry existing(self, bytes key, object original)
    cdef int remove_entry(self, Entry entry) except -1
    cdef int relocate(self, Entry entry) except -1
    # Copies of values
    cdef object copy_of_entry(self, Entry entry)
    cdef object copy_of(self, Entry entry, YieldedCopy copied)
    cdef bint is_changed(self, Entry entry, YieldedCopy copied) except -1
    cdef list running_copies(self)
    cdef bint may_be_saved(self, YieldedCopy copied, Entry entry, object original) except -1
    cdef int take_copy(self, Entry entry, object original) except -1
    # Syncing
    cdef int sync_if_due(self, long long sync_at) except -1
    cdef int schedule_sync(self) except -1
    cdef bint has_changes(self) except -1
    cpdef int sync(self, bint flush) except -1
    cpdef int revert(self) except -1
    cdef int sync_entries(self, bint flush, Entry only, set seqs, bint automatic) except -1
    cdef int write_alone(self, Entry only, set seqs, bint automatic, list failures, list dropped) except -1
    cdef int write_entries(self, Entry only, set seqs, bint automatic, list failures, list dropped) except -1
    cdef int write_changes(self, object txn, list changes, set seqs, set skip) except -1
    cdef int record_before_images(self, object txn, list changes) except -1
    cdef int one_written(self, Entry entry) except -1
    cdef int written(self, list changes, set failed) except -1
    cdef int forget_entries(self) except -1
    # Another cache has written
    cdef int reload(self) except -1
    cdef list drop_unchanged(self)
    cdef int watch_again(self, list entries) except -1
