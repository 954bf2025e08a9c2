from libc.stdint cimport int32_t, uint32_t

from tastypy_fast._core.store_base cimport StoreBase

# What becomes of a task: see finishing.pyx. Python modules import these constants, too.
cpdef enum:
    FINISH_DONE
    FINISH_FAILED
    FINISH_ABORTED
    FINISH_RETRY
    FINISH_POSTPONED
    FINISH_GIVEN_BACK
    FINISH_RELEASED

cdef bint sets_status(dict data) except -1
cdef dict data_in(int codec, bytes payload)
cdef bytes finished_data(dict value, int kind, dict data, int* codec)
cdef uint32_t finished_status(StoreBase store, long long seq, uint32_t status, int kind, bint has_data,
                              int32_t number_of_try) except? 0xffffffff
