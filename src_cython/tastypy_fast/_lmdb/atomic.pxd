# Read and write numbers in memory that other processes map, each as a whole and in the order of the program.

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t load64(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
    static inline void store64(uint64_t *at, uint64_t value) { __atomic_store_n(at, value, __ATOMIC_SEQ_CST); }
    """
    uint64_t load64(const uint64_t* at) noexcept nogil
    void store64(uint64_t* at, uint64_t value) noexcept nogil
