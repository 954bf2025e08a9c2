from libc.stdint cimport uint32_t

from tastypy_fast._core.cache_entry cimport Copy, Entry
from tastypy_fast._core.store_base cimport StoreBase

cdef class Lookup:
    cdef readonly StoreBase store
    cdef readonly long long cache_version
    cdef dict entries
    cdef list unresolved
    cdef list new_seqs
    cdef dict new_entries
    cdef long long len_delta
    cdef long long disk_count
    cdef long long dirty_count
    cdef long long disk_version
    cdef int busy
    cdef readonly bint writable
    cdef readonly bint tracks
    cdef public bint writes_through
    cdef public bint copies
    cdef readonly long long snapshot_id
    cdef readonly bint closed
    cdef object recent_key
    # The copy that a loop handed out last; weak references to the loops that are at one; and what changes where no
    # copy is to be saved any more. ``shown`` is the status that decode() has shown last.
    cdef Copy recent
    cdef list loops
    cdef long long era
    cdef uint32_t shown
    cdef set borrowed
    cdef long long recent_order
    # The record whose key a loop handed out last, and when it was read.
    cdef bytes passing
    cdef long long passing_order
    cdef long long passing_epoch
    cdef long long passing_seen

    cdef int begin_op(self) except -1
    cdef int end_op(self) except -1
    cdef bint is_stale(self) noexcept
    cdef long long pending(self) except -1
    cdef int on_new_snapshot(self) except -1
    cdef object borrow(self, Entry entry)
    cdef object decode(self, bytes key, long long seq, int codec, bytes payload)
    cdef bytes serialise(self, Entry entry, int* codec)
    cdef bytes dump(self, object value, int* codec)
    cdef int show_status(self, object value, long long seq) except -1
    cdef int entry_made(self, Entry entry) except -1
    cdef int entry_gone(self, Entry entry) except -1
    cdef int write_status(self, object txn, set only, set skip) except -1
    cdef int status_written(self, set only, set skip) except -1
    cdef bytes status_on_disk(self, object txn, long long seq)
    cdef int forget_status(self) except -1
    cdef list dirty_status_seqs(self)
    cdef object damaged(self, object key, object what)
    cdef object key_of(self, bytes key)
    cdef object get(self, bytes key, object database)
    cdef dict get_many(self, list keys, object database)
    cdef bint is_passing(self, bytes key) except -1
    cdef bytes find_record(self, bytes key, long long* seq)
    cdef long long find_seq(self, bytes key) except? -3
    cdef list find_seqs(self, list keys)
    cdef long long unpack(self, object raw) except -1
    cdef bytes record_at(self, long long seq)
    cdef Entry entry_from_record(self, bytes key, long long seq, bytes record)
    cdef int add_len_delta(self, Entry entry) except -1
    cdef int track_new(self, Entry entry) except -1
    cdef int untrack_new(self, Entry entry) except -1
    cdef int drop(self, Entry entry) except -1
    cdef int remove_len_delta(self, Entry entry) except -1
    cdef int resolve(self) except -1
    cdef int reload(self) except -1
