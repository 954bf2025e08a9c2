from libc.stdint cimport uint32_t

cdef uint32_t status_in(dict value) except? 0xffffffff
cdef bytes dump_data(dict value, int* codec)
cdef int write_status_to_dict(dict value, uint32_t status) except -1
