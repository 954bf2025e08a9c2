from libc.stdint cimport uint32_t

from tastypy_fast._core.store_base cimport StoreBase

cdef struct Claim:
    unsigned long long worker
    unsigned long long slot
    unsigned long long position
    double since
    long long tries

cdef int decode_claim(object raw, Claim* claim) except -1
cpdef bytes claim_key(long long seq)
cdef bytes encode_claim(const Claim* claim)
cdef bint try_comes_back(StoreBase store, long long seq, uint32_t status) except -1
cdef bint is_own(StoreBase store, long long seq, Claim* claim) except -1
cdef int move_claim(StoreBase store, long long seq, long long new_seq) except -1
cdef int note_tries_added(StoreBase store, long long seq, int added) except -1
cdef int note_tries_assigned(StoreBase store, long long seq, int tries) except -1
