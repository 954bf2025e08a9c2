"""Keep the newest flush point of a store in the file ``flushed``.

A flush point is a commit whose pages are on the disk and stay there (see ``flush_points``). The file has two places of
4096 bytes, written in turn, so that one of them is whole at any moment:

    offset 0    b"tpfFLUSH"
           8    sequence number, 8 bytes: the place with the greater one counts
          16    transaction, 8 bytes
          24    boot, 16 bytes (see ``boot_id``)
          40    identity of the data file, 16 bytes
          56    1 after a failed flush, 4 bytes
          60    page size of the data file, 4 bytes
          64    both meta pages of LMDB as they were after that transaction, 136 bytes each
         336    checksum of all that, 8 bytes (FNV-1a)

The module is compiled, because a signal handler must not save a note between the lines that save another one.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EINTR, EIO, ENOSPC, errno
from libc.string cimport memcmp, memcpy
from posix.unistd cimport close

import os
from typing import NamedTuple

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <sys/file.h>
    #include <sys/types.h>
    #include <unistd.h>
    /* What O_DSYNC promises: macOS has to be asked for more. */
    static int flush_file(int file) {
    #if defined(F_FULLFSYNC)
        return fcntl(file, F_FULLFSYNC);
    #else
        int status;
        do { status = fdatasync(file); } while (status != 0 && errno == EINTR);
        return status;
    #endif
    }
    static int after_write(int file) {
    #if defined(F_FULLFSYNC)
        return flush_file(file);
    #else
        return 0;
    #endif
    }
    """
    int flush_file(int file) nogil
    int after_write(int file) nogil

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int file, void* buffer, size_t size, long long offset)
    ssize_t pwrite(int file, const void* buffer, size_t size, long long offset)

cdef extern from "<sys/file.h>" nogil:
    int LOCK_EX, LOCK_UN
    int flock(int file, int operation)

cdef extern from "pythread.h":
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    int PyThread_acquire_lock(PyThread_type_lock lock, int wait) nogil
    void PyThread_release_lock(PyThread_type_lock lock) nogil

__all__ = ["FILE_SIZE", "METAS_SIZE", "FlushNote", "FlushNotes", "flush_to_disk", "has_note", "rewrite_metas"]

cdef enum:
    PLACE_SIZE = 4096
    SUMMED = 336
    # A meta page without the header of the page.
    META_AT = 16
    META_SIZE = 136

FILE_SIZE = 2 * PLACE_SIZE
METAS_SIZE = 2 * META_SIZE

cdef const char* MAGIC = b"tpfFLUSH"


class FlushNote(NamedTuple):
    """A flush point, as the file has it."""

    sequence: int
    txnid: int
    boot: bytes
    identity: bytes
    failed: bool
    page_size: int
    metas: bytes


def has_note(int file):
    """Return whether a file begins as a file of flush points does, whole or torn."""
    cdef char magic[8]
    cdef int place
    for place in range(2):
        if pread(file, magic, 8, place * PLACE_SIZE) == 8 and memcmp(magic, MAGIC, 8) == 0:
            return True
    return False


def flush_to_disk(int file):
    """Wait until a file is on the disk. Raises OSError."""
    cdef int status
    with nogil:
        status = flush_file(file)
    if status != 0:
        raise OSError(errno, os.strerror(errno))


cdef int rewrite(int file) noexcept nogil:
    """Write both meta pages of a data file again as they are, and flush it. Return 0, or the number of the error.

    After a failed flush the kernel takes a meta page that it has lost for clean, and no later flush would write it. The
    caller excludes all writers.
    """
    cdef char meta[META_SIZE]
    cdef uint32_t page_size
    cdef int page
    if pread(file, &page_size, 4, 40) != 4:
        return EIO
    for page in range(2):
        if (pread(file, meta, META_SIZE, META_AT + page * <long long>page_size) != META_SIZE
                or pwrite(file, meta, META_SIZE, META_AT + page * <long long>page_size) != META_SIZE):
            return EIO
    return 0 if flush_file(file) == 0 else errno


def rewrite_metas(int file):
    """Write both meta pages of a data file again after a failed flush. Raises OSError. The caller excludes writers."""
    cdef int number
    with nogil:
        number = rewrite(file)
    if number != 0:
        raise OSError(number, os.strerror(number))


cdef uint64_t checksum(Note* note) noexcept nogil:
    cdef const unsigned char* data = <const unsigned char*>note
    cdef uint64_t value = 0xcbf29ce484222325ULL
    cdef int place
    for place in range(SUMMED):
        value = (value ^ data[place]) * <uint64_t>0x100000001b3ULL
    return value


@cython.final
cdef class FlushNotes:
    """The file of one store, opened with O_DSYNC. It owns the file descriptor that it gets.

    A lock on the file, and one between the threads, is held while a note is saved.
    """

    def __cinit__(self):
        self.file = -1
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError("the system has no memory for another lock")

    def __init__(self, int file):
        self.file = file

    def __dealloc__(self):
        self.let_go()
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    def leave_to_parent(self):
        """Close the file in a forked child, where another thread of the parent may hold the lock for ever."""
        self.let_go()

    cdef int let_go(self) noexcept:
        if self.file >= 0:
            close(self.file)
            self.file = -1
        return 0

    def close(self):
        """Close the file, after a note that another thread is saving."""
        with nogil:
            PyThread_acquire_lock(self.lock, 1)
        self.let_go()
        PyThread_release_lock(self.lock)

    def fileno(self):
        """Return the descriptor, -1 if the file is closed."""
        return self.file

    cdef int load(self, int place, Note* note) noexcept nogil:
        """Read one place, and return whether it is whole."""
        return (pread(self.file, note, sizeof(Note), place * PLACE_SIZE) == sizeof(Note)
                and memcmp(note.magic, MAGIC, 8) == 0 and note.checksum == checksum(note))

    cdef int newest(self, Note* note) noexcept nogil:
        """Read the newest note, and return its place. -1 if there is none."""
        cdef Note other
        cdef int first = self.load(0, note), second = self.load(1, &other)
        if second and (not first or other.sequence > note.sequence):
            memcpy(note, &other, sizeof(Note))
            return 1
        return 0 if first else -1

    cdef int put(self, int place, Note* note) noexcept nogil:
        """Write one place to the disk. Return 0, or the number of the error."""
        cdef ssize_t done
        memcpy(note.magic, MAGIC, 8)
        note.checksum = checksum(note)
        while True:
            done = pwrite(self.file, note, sizeof(Note), place * PLACE_SIZE)
            if done == sizeof(Note):
                return 0 if after_write(self.file) == 0 else errno
            if done >= 0:
                return ENOSPC
            if errno != EINTR:
                return errno

    cdef int begin(self) except -1:
        """Acquire both locks."""
        cdef int status = 0
        with nogil:
            PyThread_acquire_lock(self.lock, 1)
            while self.file >= 0:
                status = flock(self.file, LOCK_EX)
                if status == 0 or errno != EINTR:
                    break
        if self.file < 0 or status != 0:
            PyThread_release_lock(self.lock)
            raise OSError(errno, os.strerror(errno)) if self.file >= 0 else ValueError("the notes are closed")
        return 0

    cdef int end(self) noexcept:
        flock(self.file, LOCK_UN)
        PyThread_release_lock(self.lock)
        return 0

    cdef long long older(self) noexcept:
        """Return a transaction that is certainly on the disk, because the newest note may just be on its way there.

        -1 if there is no note, -2 after a failed flush.
        """
        cdef Note first, second
        cdef bint has_first = self.load(0, &first), has_second = self.load(1, &second)
        if has_first and has_second:
            if (first.failed if first.sequence > second.sequence else second.failed):
                return -2
            return min(first.txnid, second.txnid)
        if has_first:
            return -2 if first.failed else first.txnid
        if has_second:
            return -2 if second.failed else second.txnid
        return -1

    def read(self):
        """Return the newest note, or None."""
        cdef Note note
        if self.file < 0 or self.newest(&note) < 0:
            return None
        return FlushNote(
            note.sequence, note.txnid, PyBytes_FromStringAndSize(note.boot, 16),
            PyBytes_FromStringAndSize(note.identity, 16), note.failed != 0, note.page_size,
            PyBytes_FromStringAndSize(note.metas, 2 * META_SIZE),
        )

    def save(self, unsigned long long txnid, unsigned int page_size, bytes metas not None, bytes boot not None,
             bytes identity not None, ReaderSlot slot, bint force):
        """Save a note, unless a younger one is there. With ``force`` an older one, too.

        ``slot`` tells which note is certainly on the disk. Returns False, and saves nothing, after a failed flush.
        Raises OSError, and then counts as a failed flush itself.
        """
        cdef Note note, last
        cdef int place, number = 0
        if len(metas) != 2 * META_SIZE or len(boot) != 16 or len(identity) != 16:
            raise ValueError("a part of the note has a wrong length")
        self.begin()
        place = self.newest(&last)
        if place >= 0 and not force:
            if last.failed:
                self.end()
                return False
            if (slot is None or not slot.is_set() or slot.txnid() < last.txnid):
                # Its process may have been killed before the note was on the disk.
                with nogil:
                    number = errno if flush_file(self.file) != 0 else 0
        if number == 0 and (place < 0 or force or last.txnid < txnid):
            note.sequence = last.sequence + 1 if place >= 0 else 1
            note.txnid = txnid
            note.failed = 0
            note.page_size = page_size
            memcpy(note.boot, PyBytes_AS_STRING(boot), 16)
            memcpy(note.identity, PyBytes_AS_STRING(identity), 16)
            memcpy(note.metas, PyBytes_AS_STRING(metas), 2 * META_SIZE)
            with nogil:
                number = self.put(0 if place == 1 else 1, &note)
                if number != 0 and place >= 0:
                    # The other place is the only one that is certainly on the disk.
                    last.sequence += 2
                    last.failed = 1
                    self.put(1 - place, &last)
        self.end()
        if number != 0:
            raise OSError(number, os.strerror(number))
        return True

    def mark_failed(self):
        """Mark the newest note as that of a failed flush. Raises OSError."""
        cdef Note note
        cdef int place, number = 0
        self.begin()
        place = self.newest(&note)
        if place >= 0 and not note.failed:
            note.sequence += 1
            note.failed = 1
            with nogil:
                number = self.put(1 - place, &note)
        self.end()
        if number != 0:
            raise OSError(number, os.strerror(number))
