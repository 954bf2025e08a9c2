"""Reserve a slot in LMDB's reader table for the flush point, so that no process reuses a page of it.

LMDB reuses a page only if every transaction in its reader table, in ``lock.mdb``, is younger than the one that freed
the page. One slot for all processes therefore protects the flush point. It has the number of a process that cannot
exist:

    PROCESS   no write transaction may begin without this slot
    FAILED    a flush has failed: the slot protects its flush point, and nothing may be written

``mdb_reader_check()`` removes the slots of processes that have no lock on the byte with their number. So each process
that uses the slot has an open file description lock on that byte. Where the system has none of these, a writer that
finds the slot gone sets it again before it takes a page.

The file is mapped here, too. It must be opened before LMDB opens it and closed after that, because closing any
descriptor of a file releases all record locks that this process has on it.

Layouts of the table, which ``find_layout()`` tests: LMDB 0.9 with 64 bits.

    count at   table at
    56         128        pthread mutexes (Linux)
    48         128        named semaphores (macOS)
    80         192        the same, with names as long as a mutex

A slot has 64 bytes: transaction 8, process 4, thread 8.
"""

cimport cython

from libc.errno cimport ESRCH, errno
from libc.string cimport memset
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.signal cimport kill
from posix.unistd cimport close

from tastypy_fast._lmdb.atomic cimport load64, store64
from tastypy_fast._lmdb.record_locks cimport F_OFD_SETLK, F_RDLCK, RecordLock, fcntl

import os

cdef extern from *:
    """
    #include <stdint.h>
    static uint32_t load32(uint32_t *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
    static void store32(uint32_t *at, uint32_t value) { __atomic_store_n(at, value, __ATOMIC_SEQ_CST); }
    static int replace64(uint64_t *at, uint64_t before, uint64_t value) {
        return __atomic_compare_exchange_n(at, &before, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    """
    uint32_t load32(uint32_t* at) nogil
    void store32(uint32_t* at, uint32_t value) nogil
    bint replace64(uint64_t* at, uint64_t before, uint64_t value) nogil

__all__ = ["ReaderSlot"]

cdef enum:
    # No system gives these numbers to a process.
    PROCESS = 0x7ffffff0
    FAILED = 0x7ffffff1
    # The first slot that is tried. Every writer scans the table up to the slot, and readers take the slots before it.
    FIRST = 60
    SLOT_SIZE = 64
    # More commits than there are between two lines of code.
    NEWER = 1 << 30


@cython.final
cdef class ReaderSlot:
    """The slot of the flush point in one ``lock.mdb``. It owns the file descriptor that it gets.

    Only a process that holds the writer lock, or has the store alone, sets the slot. Any process moves it forward.
    """

    def __cinit__(self):
        self.file = -1
        self.map = NULL

    def __init__(self, int file):
        cdef RecordLock lock
        cdef void* place
        self.file = file
        self.size = os.fstat(file).st_size
        place = mmap(NULL, self.size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
        if place == MAP_FAILED:
            raise OSError(errno, os.strerror(errno))
        self.map = <char*>place
        if F_OFD_SETLK >= 0:
            memset(&lock, 0, sizeof(lock))
            lock.l_type = F_RDLCK
            lock.l_start = PROCESS
            lock.l_len = 2  # and FAILED
            fcntl(file, F_OFD_SETLK, &lock)

    def __dealloc__(self):
        self.let_go()

    def close(self):
        """Unmap and close the file. LMDB was closed before."""
        self.let_go()

    cdef int let_go(self) noexcept:
        if self.map != NULL:
            munmap(self.map, self.size)
            self.map = NULL
        if self.file >= 0:
            close(self.file)
            self.file = -1
        self.is_known = False
        return 0

    def identity(self):
        """Return device and inode of the file."""
        status = os.fstat(self.file)
        return status.st_dev, status.st_ino

    # The table

    def find_layout(self, db):
        """Find the slot of a read transaction of this process, and return whether it is where it should be."""
        cdef uint64_t index, number
        cdef int32_t process = os.getpid()
        cdef size_t count_at, table_at
        txn = db.begin()
        try:
            number = txn.id()
            for count_at, table_at in ((56, 128), (48, 128), (80, 192)):
                self.count_at, self.table_at = count_at, table_at
                if (self.map != NULL and self.size > table_at and 0 < load32(self.count()) <= self.capacity()
                        and self.capacity() > FIRST
                        # The last commit, which may be a younger one by now.
                        and load64(<uint64_t*>(self.map + count_at - 8)) - number < NEWER):
                    for index in range(load32(self.count())):
                        if self.process_at(index)[0] == process and load64(self.txnid_at(index)) == number:
                            return True
        finally:
            txn.abort()
        self.count_at = self.table_at = 0
        return False

    cdef uint32_t* count(self) noexcept:
        return <uint32_t*>(self.map + self.count_at)

    cdef uint64_t* txnid_at(self, uint64_t index) noexcept:
        return <uint64_t*>(self.map + self.table_at + index * SLOT_SIZE)

    cdef int32_t* process_at(self, uint64_t index) noexcept:
        return <int32_t*>(self.map + self.table_at + index * SLOT_SIZE + 8)

    cdef uint64_t capacity(self) noexcept:
        return (self.size - self.table_at) // SLOT_SIZE

    cdef bint find(self) noexcept:
        """Find the slot, whatever its state. Return whether there is one."""
        cdef uint64_t index
        cdef int32_t process
        self.is_known = False
        if self.map == NULL or self.table_at == 0:
            return False
        for index in range(min(<uint64_t>load32(self.count()), self.capacity())):
            process = <int32_t>load32(<uint32_t*>self.process_at(index))
            if process == PROCESS or process == FAILED:
                self.index = index
                self.is_known = True
                return True
        return False

    cdef bint is_set(self) noexcept:
        """Return whether the slot protects a flush point, and writing is allowed."""
        if not self.is_known and not self.find():
            return False
        if (load32(<uint32_t*>self.process_at(self.index)) == PROCESS and load32(self.count()) > self.index):
            return True
        return self.find() and load32(<uint32_t*>self.process_at(self.index)) == PROCESS

    cdef bint place(self, uint64_t txnid) noexcept:
        """Set the slot to a transaction, at a free place. Return whether there was one."""
        cdef uint64_t index, other, count
        cdef int32_t process
        if self.map == NULL or self.table_at == 0:
            return False
        count = load32(self.count())
        if self.find():
            store64(self.txnid_at(self.index), txnid)
            store32(<uint32_t*>self.process_at(self.index), PROCESS)
            return True
        for index in range(FIRST, self.capacity()):
            if index < count and load32(<uint32_t*>self.process_at(index)):
                continue
            store64(self.txnid_at(index), txnid)
            store32(<uint32_t*>self.process_at(index), PROCESS)
            # What an earlier user of the table has left must not come to life.
            for other in range(count, index):
                process = <int32_t>load32(<uint32_t*>self.process_at(other))
                if process and kill(process, 0) != 0 and errno == ESRCH:
                    store32(<uint32_t*>self.process_at(other), 0)
            if count <= index:
                store32(self.count(), <uint32_t>(index + 1))
            self.index = index
            self.is_known = True
            return True
        return False

    cdef uint64_t txnid(self) noexcept:
        """Return the transaction that the slot protects, as far as it is set."""
        return load64(self.txnid_at(self.index)) if self.is_known else 0

    # For Python code

    def set(self, unsigned long long txnid):
        """Set the slot. The caller has the store alone. Return whether it is set."""
        return self.place(txnid)

    def get(self):
        """Return the transaction that the slot protects, or None if it is not set."""
        return self.txnid() if self.is_set() else None

    def move(self, unsigned long long txnid):
        """Move the slot forward to a transaction. A slot that is not set is left to the next writer."""
        cdef uint64_t before
        while self.is_set():
            before = self.txnid()
            if before >= txnid or replace64(self.txnid_at(self.index), before, txnid):
                return

    def mark_failed(self):
        """Refuse writes in all processes. The slot still protects its flush point."""
        if self.find():
            store32(<uint32_t*>self.process_at(self.index), FAILED)

    def has_failed(self):
        """Return whether ``mark_failed()`` was called, in any process."""
        return self.find() and load32(<uint32_t*>self.process_at(self.index)) == FAILED

    def clear(self):
        """Clear the slot, as ``mdb_reader_check()`` may do."""
        if self.find():
            store32(<uint32_t*>self.process_at(self.index), 0)
            self.is_known = False
