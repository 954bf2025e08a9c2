from libc.stdint cimport uint32_t, uint64_t

from tastypy_fast._lmdb.reader_slot cimport ReaderSlot

cdef extern from "pythread.h":
    ctypedef void* PyThread_type_lock

cdef struct Note:
    char magic[8]
    uint64_t sequence
    uint64_t txnid
    char boot[16]
    char identity[16]
    uint32_t failed
    uint32_t page_size
    char metas[272]
    uint64_t checksum

cdef int rewrite(int file) noexcept nogil

cdef class FlushNotes:
    cdef int file
    cdef PyThread_type_lock lock

    cdef int let_go(self) noexcept
    cdef int load(self, int place, Note* note) noexcept nogil
    cdef int newest(self, Note* note) noexcept nogil
    cdef int put(self, int place, Note* note) noexcept nogil
    cdef int begin(self) except -1
    cdef int end(self) noexcept
    cdef long long older(self) noexcept
