"""Keep what the changed keys of a shared store held at the last sync, in the file ``undo`` of its folder.

A before-image belongs to a sequence number. It is needed only while a process has the store open, because opening a
store counts as a sync. So it does not have to survive a power cut, and is not in the database: an append to a file
writes a few bytes, where an insertion into a B-tree writes two pages with each commit.

    magic 8, zeros up to 64 bytes; two extents; then entries

    extent: transaction 8, generation 8, start 8, end 8 bytes
    entry:  sequence number 8, size 4, change 4 bytes, then ``size`` bytes

An extent says which entries count after the transaction with this number. All processes map both. The writer of
transaction T appends its entries, and then overwrites the older extent, before LMDB commits T. So the extent of a
commit is the one with the greatest number that is not greater than the commit's. If T is never committed, because its
process was killed or the disk is full, the next transaction has the same number. It first invalidates the extent.
Each transaction does so at its begin, also one that changes nothing here.

Only the first change of a sequence number after a sync records an image. Each process keeps in memory which images
there are. It reads the entries that other processes have appended when it records or counts the next time. Entries are
overwritten only after a commit without any: the first entry after it goes to the beginning of the file.

Cost: one ``pwrite()`` for each transaction that records images. Memory: one byte for each sequence number with an
image, in blocks of 256.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EINTR, errno
from libc.string cimport memcpy
from posix.unistd cimport close as close_file, ftruncate, pread, pwrite

from tastypy_fast._core.cache_entry cimport pack
from tastypy_fast._lmdb.atomic cimport load64, store64

import mmap
import os

from tastypy_fast._lmdb.safe_files import open_regular, standard_descriptors_taken
from tastypy_fast._lmdb.store_dir import DATA, UNDO, creation_error
from tastypy_fast.exceptions import CalledClosedTrackerError, PersistentOrderedDictIntegrityError, StorageError

__all__ = ["BeforeImages"]

cdef bytes MAGIC = b"undo\0\0\0\1"

cdef struct Head:
    long long seq
    uint32_t size
    uint32_t change

cdef enum:
    EXTENTS_AT = 64
    # Where entries begin: after the two extents.
    BEGIN = 128
    # Entries of so many bytes are written before the commit, to bound the memory of a large transaction.
    WRITE_SIZE = 1 << 18
    # A file that is larger is truncated when it is empty.
    KEPT_SIZE = 1 << 20
    SEQS_PER_BLOCK = 256
    STATUS_SIZE = 4

# What an entry says of its sequence number.
cdef enum:
    # It was added. The entry has no data.
    ADDED = 1
    # Its status changed. The data are the status before.
    STATUS = 2
    # Its record changed. The data are the status and the record before.
    STATUS_AND_RECORD = 3
    # Its record changed after its status. The data are the record before.
    RECORD = 4
    # Its present state is the one to restore.
    FORGOTTEN = 5

# Which image a sequence number has.
cdef enum:
    NONE = 0
    ONLY_STATUS = 1
    COMPLETE = 2


cdef int kind_after(uint32_t change) noexcept:
    if change == STATUS:
        return ONLY_STATUS
    return NONE if change == FORGOTTEN else COMPLETE


cdef object was_changed(str path):
    return PersistentOrderedDictIntegrityError(
        f"the file {UNDO} of the store at {path} was changed while it is open; close all processes that have the store "
        f"open"
    )


cdef object foreign_entry(str what):
    return PersistentOrderedDictIntegrityError(
        f"an entry of the file {UNDO} {what}, because another program changed the file; close all processes that have "
        f"the store open"
    )


cdef Py_ssize_t next_entry(bytes data, Py_ssize_t at, Head* head) except -1:
    """Read the head of the entry at an offset, and return where the entry ends."""
    cdef Py_ssize_t end = at + sizeof(Head)
    if end <= PyBytes_GET_SIZE(data):
        memcpy(head, PyBytes_AS_STRING(data) + at, sizeof(Head))
        end += head.size
    if end > PyBytes_GET_SIZE(data):
        raise foreign_entry("is cut short")
    if head.seq < 0 or not has_size_of(head.change, head.size):
        raise foreign_entry("is none of this package")
    return end


cdef bint has_size_of(uint32_t change, uint32_t size) noexcept:
    """Return whether there is such a change, and its entry may have data of this size."""
    if change == ADDED or change == FORGOTTEN:
        return size == 0
    if change == STATUS:
        return size == STATUS_SIZE
    return size >= STATUS_SIZE if change == STATUS_AND_RECORD else change == RECORD


cdef dict images_in(bytes data):
    """Return the images that entries amount to. See ``BeforeImages.images()``."""
    cdef dict found = {}
    cdef Head head
    cdef Py_ssize_t at = 0, end
    while at < PyBytes_GET_SIZE(data):
        end = next_entry(data, at, &head)
        if head.change == FORGOTTEN:
            found.pop(head.seq, None)
        else:
            image = data[at + sizeof(Head):end]
            if head.change == RECORD:
                if len(found.get(head.seq, b"")) != STATUS_SIZE:
                    raise foreign_entry("does not follow the one before it")
                image = found[head.seq] + image
            found[head.seq] = image
        at = end
    return {pack(seq): found[seq] for seq in sorted(found)}


@cython.final
cdef class BeforeImages:
    """The before-images of one store, for the write transactions of this process.

    All methods but ``images_at()`` belong to the open write transaction. They never fail because the disk is full,
    except ``publish()``.
    """

    def __cinit__(self, str path not None, bint create):
        """Open the file. With ``create``, for the first process on a store, begin it anew."""
        self.file = -1
        self.path = path
        self.unwritten = bytearray()
        self.kinds = {}
        try:
            self.file = open_regular(os.path.join(path, UNDO), os.O_RDWR | (os.O_CREAT if create else 0),
                                     os.path.join(path, DATA))
            if create:
                os.ftruncate(self.file, 0)
                data = MAGIC.ljust(BEGIN, b"\0")
                # Write the whole beginning now, because a full disk would end the process at a page fault later.
                while data:
                    data = data[os.write(self.file, data):]
            elif os.pread(self.file, 8, 0) != MAGIC or os.fstat(self.file).st_size < BEGIN:
                raise was_changed(path)
            with standard_descriptors_taken():
                self.mapped = mmap.mmap(self.file, BEGIN)
        except FileNotFoundError as error:
            raise StorageError(error.errno, f"{UNDO} was removed while other processes have this store open; close "
                               f"them all, and open it again", path) from error
        except OSError as error:
            raise creation_error(error, path, "the store cannot be opened", UNDO) from error
        PyObject_GetBuffer(self.mapped, &self.view, PyBUF_WRITABLE)
        self.extents = <Extent*>(<char*>self.view.buf + EXTENTS_AT)
        if create:
            self.extents[0].start = self.extents[0].end = BEGIN
            self.extents[0].generation = 1
            store64(&self.extents[0].transaction, 1)

    def __dealloc__(self):
        self.close()

    def close(self):
        """Close the file. In a forked child, the parent's stays open."""
        if self.extents != NULL:
            self.extents = NULL
            PyBuffer_Release(&self.view)
        if self.file >= 0:
            close_file(self.file)
            self.file = -1

    # Transactions

    cdef int begin(self, uint64_t transaction) except -1:
        """Begin the write transaction with this number."""
        cdef int place
        self.require_open()
        for place in range(2):
            if self.extents[place].transaction >= transaction:
                # Its transaction was not committed.
                store64(&self.extents[place].transaction, 0)
        self.committed = self.newest()[0]
        self.transaction = transaction
        self.is_current = False
        return 0

    cdef int publish(self) except -1:
        """Write what the transaction has recorded. It counts if LMDB commits the transaction after this."""
        cdef Extent* extent
        if not self.is_current or not self.has_recorded():
            return 0
        self.write(True)
        extent = &self.extents[self.extents[0].transaction == self.committed.transaction]
        store64(&extent.transaction, 0)
        extent.generation = self.generation
        extent.start = self.start
        extent.end = self.written
        store64(&extent.transaction, self.transaction)
        return 0

    cdef int abandon(self) except -1:
        """Forget what the transaction has recorded, because it was not committed."""
        if self.is_current and self.has_recorded():
            self.unwritten = bytearray()
            # No generation has this number, so the next transaction reads all entries again.
            self.generation = 0
        self.is_current = False
        return 0

    cdef Extent mark(self) except *:
        """Return the present state of the open transaction, for ``roll_back()``."""
        cdef Extent mark
        self.catch_up()
        mark.transaction = self.transaction
        mark.generation = self.generation
        mark.start = self.start
        mark.end = self.end()
        return mark

    cdef int roll_back(self, Extent mark) except -1:
        """Return to an earlier state of the open transaction. Cost: a read of all entries, if any was recorded since.

        Nothing before the end of the transaction's entries is overwritten while the transaction is open.
        """
        if self.generation == mark.generation and self.end() == mark.end:
            return 0
        if mark.end >= self.written:
            PyByteArray_Resize(self.unwritten, mark.end - self.written)
        else:
            self.unwritten = bytearray()
            self.written = mark.end
        self.kinds = {}
        self.known = 0
        self.generation = mark.generation
        self.start = mark.start
        return self.learn(self.entries())

    # Recording

    cdef long long count(self) except -1:
        """Return how many sequence numbers have an image."""
        self.catch_up()
        return self.known

    cdef bint has_record(self, long long seq) except -1:
        """Return whether nothing more has to be recorded for a sequence number."""
        self.catch_up()
        return self.kind_of(seq) == COMPLETE

    cdef int note_added(self, long long seq) except -1:
        """Record that a sequence number was added."""
        self.catch_up()
        if self.kind_of(seq) == NONE:
            self.append(seq, ADDED, NULL, 0, b"")
        return 0

    cdef int note_status(self, long long seq, uint32_t status) except -1:
        """Record the status of a task before it changes, unless there is an image."""
        self.catch_up()
        if self.kind_of(seq) == NONE:
            self.append(seq, STATUS, <const char*>&status, STATUS_SIZE, b"")
        return 0

    cdef int note_record(self, long long seq, uint32_t status, bytes record) except -1:
        """Record the status, 0 in a store without tasks, and the record before it changes, unless there is an image."""
        cdef int kind
        self.catch_up()
        kind = self.kind_of(seq)
        if kind == NONE:
            self.append(seq, STATUS_AND_RECORD, <const char*>&status, STATUS_SIZE, record)
        elif kind == ONLY_STATUS:
            self.append(seq, RECORD, NULL, 0, record)
        return 0

    cdef int forget(self, long long seq) except -1:
        """Remove the image of a sequence number."""
        self.catch_up()
        if self.kind_of(seq) != NONE:
            self.append(seq, FORGOTTEN, NULL, 0, b"")
        return 0

    cdef int clear(self) except -1:
        """Remove all images."""
        self.catch_up()
        if self.known:
            self.kinds = {}
            self.known = 0
            self.generation += 1
            self.start = self.end()
        return 0

    # Reading

    cdef dict images(self):
        """Return a dict of the packed sequence numbers and their images, ascending, as the open transaction sees them.

        An image is empty if the number was added, the status before (4 bytes), or the status and the record before.
        """
        self.catch_up()
        return images_in(self.entries())

    cdef dict images_at(self, uint64_t transaction):
        """Return what ``images()`` returned when the transaction with this number was committed.

        It needs no write transaction. Returns None if newer transactions have overwritten it: the caller needs a newer
        snapshot. That may also be so for a moment before a commit.
        """
        cdef Extent found, other
        cdef const Extent* extent
        cdef int place
        cdef uint64_t greatest = 0
        self.require_open()
        for place in range(2):
            extent = &self.extents[place]
            other.transaction = load64(&extent.transaction)
            other.generation = load64(&extent.generation)
            other.start = load64(&extent.start)
            other.end = load64(&extent.end)
            if other.transaction != load64(&extent.transaction):
                return None
            if greatest < other.transaction <= transaction:
                greatest = other.transaction
                found = other
        if greatest == 0:
            return None
        data = self.read(found.start, found.end)
        for place in range(2):
            extent = &self.extents[place]
            if load64(&extent.transaction) > found.transaction and load64(&extent.generation) != found.generation:
                return None
        if load64(&self.extents[0].transaction) != greatest and load64(&self.extents[1].transaction) != greatest:
            return None
        return images_in(data)

    # Internals

    cdef int require_open(self) except -1:
        if self.extents == NULL:
            raise CalledClosedTrackerError("this store was closed; open it again to use it")
        return 0

    cdef uint64_t end(self) noexcept:
        """Return the offset at which the next entry begins."""
        return self.written + PyByteArray_GET_SIZE(self.unwritten)

    cdef bint has_recorded(self) noexcept:
        """Return whether the open transaction differs from the last commit."""
        return self.generation != self.committed.generation or self.end() != self.committed.end

    cdef bytes entries(self):
        """Return the entries that count in the open transaction."""
        if self.start < self.written:
            return self.read(self.start, self.written) + self.unwritten
        return bytes(self.unwritten[self.start - self.written:])

    cdef const Extent* newest(self) noexcept:
        return &self.extents[self.extents[1].transaction > self.extents[0].transaction]

    cdef int catch_up(self) except -1:
        """Read what other processes have recorded."""
        if self.is_current:
            return 0
        if self.committed.start == self.committed.end and self.committed.end != BEGIN:
            # Nobody needs the entries in the file.
            if self.committed.end > KEPT_SIZE:
                ftruncate(self.file, BEGIN)
            self.know_nothing(&self.committed)
            self.generation += 1
            self.start = self.written = BEGIN
        else:
            if self.generation != self.committed.generation or self.written > self.committed.end:
                self.know_nothing(&self.committed)
            if self.written < self.committed.end:
                data = self.read(self.written, self.committed.end)
                self.written = self.committed.end
                self.learn(data)
        self.is_current = True
        return 0

    cdef int know_nothing(self, const Extent* extent) except -1:
        """Begin with an empty state of an extent."""
        self.kinds = {}
        self.known = 0
        self.unwritten = bytearray()
        self.generation = extent.generation
        self.start = self.written = extent.start
        return 0

    cdef int learn(self, bytes data) except -1:
        """Note which images there are."""
        cdef Head head
        cdef Py_ssize_t at = 0, size = PyBytes_GET_SIZE(data)
        while at < size:
            at = next_entry(data, at, &head)
            self.set_kind(head.seq, kind_after(head.change))
        return 0

    cdef int kind_of(self, long long seq) except -1:
        block = self.kinds.get(seq // SEQS_PER_BLOCK)
        return NONE if block is None else PyByteArray_AS_STRING(block)[seq % SEQS_PER_BLOCK]

    cdef int set_kind(self, long long seq, int kind) except -1:
        cdef char* place
        number = seq // SEQS_PER_BLOCK
        block = self.kinds.get(number)
        if block is None:
            block = self.kinds[number] = bytearray(SEQS_PER_BLOCK)
        place = PyByteArray_AS_STRING(block) + seq % SEQS_PER_BLOCK
        self.known += (kind != NONE) - (place[0] != NONE)
        place[0] = kind
        return 0

    cdef int append(self, long long seq, int change, const char* first, Py_ssize_t first_size, bytes rest) except -1:
        cdef Head head
        cdef Py_ssize_t size = PyByteArray_GET_SIZE(self.unwritten)
        cdef Py_ssize_t rest_size = PyBytes_GET_SIZE(rest)
        cdef char* at
        head.seq = seq
        head.size = first_size + rest_size
        head.change = change
        PyByteArray_Resize(self.unwritten, size + sizeof(Head) + head.size)
        at = PyByteArray_AS_STRING(self.unwritten) + size
        memcpy(at, &head, sizeof(Head))
        if first_size:
            memcpy(at + sizeof(Head), first, first_size)
        memcpy(at + sizeof(Head) + first_size, PyBytes_AS_STRING(rest), rest_size)
        self.set_kind(seq, kind_after(change))
        if PyByteArray_GET_SIZE(self.unwritten) >= WRITE_SIZE:
            self.write(False)
        return 0

    cdef int write(self, bint required) except -1:
        """Write the entries in memory to the file. They stay in memory if the disk is full and it is not required."""
        cdef Py_ssize_t size = PyByteArray_GET_SIZE(self.unwritten), done = 0
        cdef const char* data = PyByteArray_AS_STRING(self.unwritten)
        cdef Py_ssize_t count
        cdef int reason = 0
        with nogil:
            while done < size:
                count = pwrite(self.file, data + done, size - done, self.written + done)
                if count > 0:
                    done += count
                elif count == 0 or errno != EINTR:
                    reason = errno
                    break
        if done == size:
            self.written += size
            PyByteArray_Resize(self.unwritten, 0)
        elif required:
            error = OSError(reason, os.strerror(reason))
            raise creation_error(error, self.path, "nothing was written", UNDO) from error
        return 0

    cdef bytes read(self, uint64_t start, uint64_t end):
        cdef Py_ssize_t size = end - start, done = 0, count
        cdef int reason = 0
        cdef bytes data = PyBytes_FromStringAndSize(NULL, size)
        cdef char* at = PyBytes_AS_STRING(data)
        with nogil:
            while done < size:
                count = pread(self.file, at + done, size - done, start + done)
                if count > 0:
                    done += count
                elif count == 0 or errno != EINTR:
                    reason = errno if count else 0
                    break
        if done < size and reason:
            raise StorageError(reason, f"{UNDO} cannot be read ({os.strerror(reason)})", self.path)
        if done < size:
            raise was_changed(self.path)
        return data
