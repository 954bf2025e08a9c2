from tastypy_fast._core.write_cache cimport WriteCache
from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._shared.writer_lock cimport WriterLock

cpdef enum:
    OPERATION = 0
    BLOCK = 1
    SAVEPOINT = 2
    MANUAL = 3

cdef class WriteTransaction(StoreBase):
    cdef readonly object store
    cdef readonly WriteCache cache
    cdef public long long sync_at
    cdef public bint flushes
    cdef bint is_too_small
    # Of image_count: others may have changed it; an undone part may have.
    cdef bint is_unsure
    cdef bint is_unknown
    cdef long long images_counted
    cdef public bint closed
    cdef readonly long long epoch
    cdef public WriterLock writer_lock
    cdef list scopes
    cdef list parents
    cdef object failure
    cdef long long expected

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
    cdef int commit(self) except -1
    cdef int drop(self) except -1
    cdef int end_savepoint(self, bint failed) except -1
    cpdef int drop_images(self) except -1
    cdef bint is_sync_due(self) except -1
