from tastypy_fast._core.cache_entry cimport Entry
from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.write_cache cimport WriteCache
from tastypy_fast._lmdb.flush_notes cimport FlushNotes
from tastypy_fast._lmdb.reader_slot cimport ReaderSlot
from tastypy_fast._shared.undo_log cimport UndoLog
from tastypy_fast._shared.writer_lock cimport WriterLock

cpdef enum:
    OPERATION = 0
    BLOCK = 1
    SAVEPOINT = 2
    MANUAL = 3

cdef class WriteTransaction(StoreBase):
    # The SharedStore. The stub declares the methods that a transaction calls.
    cdef readonly object store
    cdef readonly WriteCache cache
    cdef readonly UndoLog undo_log
    # The number of keys that differ from the last sync at which the automatic sync is due.
    cdef public long long sync_at
    # Whether the commit waits until the disk has it.
    cdef bint flushes
    cdef bint needs_larger_map
    # Whether the outermost block is one call of perform(), which is repeated when the map is full.
    cdef bint repeats
    cdef readonly bint closed
    # Changes when all open blocks end at once, so that a block of an earlier epoch is not ended again.
    cdef readonly long long epoch
    cdef WriterLock writer_lock
    # What protects the last flush point, or None where each commit is flushed or none.
    cdef ReaderSlot slot
    cdef FlushNotes notes
    # Whether a commit or a flush has failed, so that the meta pages have to be written again.
    cdef public bint flush_failed
    # Whether the next transaction flushes before it begins.
    cdef bint needs_flush
    # Whether something was committed after the last flush of this process.
    cdef public bint waits
    # About how many bytes of values and places this transaction has written.
    cdef long long written
    # About how many bytes this process has written while the slot protected this transaction.
    cdef long long waiting, waiting_since
    # The kinds of the open blocks, outermost first.
    cdef list blocks
    # The free bytes of the map beyond those that a block may need, as estimated. At 0 they are read again.
    cdef long long room
    # LMDB's transactions around the current one, outermost first.
    cdef list parents
    # The state of the before-images at the beginning of each savepoint.
    cdef list marks
    # Why nothing of the open blocks can be committed, or None.
    cdef object failure
    # Whether a block waits for the block of another process, and does not raise StorageError (EBUSY).
    cdef public bint is_patient
    # The id of the next LMDB transaction, if no other process writes before it.
    cdef long long expected_id

    cpdef int begin_block(self, int kind) except -1
    cpdef int end_block(self, bint failed) except -1
    cpdef int end_all_blocks(self) except -1
    cdef bint is_inside(self)
    cdef bint is_single(self)
    cdef int raise_translated(self, object error) except -1
    cdef int retry_with_larger_map(self, object error) except -1
    cdef int end_block_if(self, long long epoch, bint failed) except -1
    cdef int poison(self) except -1
    cdef int end_user_block(self, bint failed) except -1
    cdef int end_outermost(self, bint failed, bint undone) except -1
    cdef int begin(self, int kind) except -1
    cdef int begin_writing(self) except -1
    cdef int make_room(self) except -1
    cdef int assign(self, bytes key, bytes record) except -1
    cdef bint write_only_entry(self) except -1
    cdef int look_up_old_keys(self) except -1
    cdef object find(self, Entry entry)
    cdef int protect_flush_point(self) except -1
    cdef int commit(self) except -1
    cdef int count_waiting(self, long long number) except -1
    cdef int clear_images(self) except -1
    cdef int use_number(self) except -1
    cdef int roll_back(self) except -1
    cdef int end_savepoint(self, bint failed) except -1
