"""Ask the system for the type of a file system."""

from cpython.bytes cimport PyBytes_AS_STRING

import os

cdef extern from *:
    """
    #ifdef __linux__

    #include <sys/vfs.h>

    static unsigned int type_of(const char* path) {
        struct statfs status;
        return statfs(path, &status) ? 0 : (unsigned int)status.f_type;
    }

    #else

    static unsigned int type_of(const char* path) {
        (void)path;
        return 0;
    }

    #endif
    """
    unsigned int type_of(const char* path) nogil

__all__ = ["file_system_type"]


def file_system_type(str path not None):
    """Return the number that the kernel gives to the type of the file system that has ``path``, as in statfs(2).

    0 if the system does not tell: on systems other than Linux, and for a path that does not exist.
    """
    cdef bytes name = os.fsencode(path)
    cdef const char* text = PyBytes_AS_STRING(name)
    cdef unsigned int found
    with nogil:
        found = type_of(text)
    return found
