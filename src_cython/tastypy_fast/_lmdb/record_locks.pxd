cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <fcntl.h>
    /* Open file description locks. A system without them locks nothing. */
    #ifndef F_OFD_SETLK
    #define F_OFD_SETLK (-1)
    #endif
    """
    int F_OFD_SETLK

cdef extern from "<fcntl.h>" nogil:
    int F_GETLK, F_RDLCK, F_SETLK, F_SETLKW, F_UNLCK, F_WRLCK
    struct RecordLock "flock":
        short l_type
        short l_whence
        long long l_start
        long long l_len
    int fcntl(int file, int command, ...)
