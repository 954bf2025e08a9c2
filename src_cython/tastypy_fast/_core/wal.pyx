"""Append scattered syncs to the write-ahead log of a private store, replay them, and checkpoint them in sorted runs.

A sync of 1,000 scattered values changes 900 pages of the databases, but only 30 pages as a batch in the log. Changes
that are in the log and not in the databases yet are also in memtables, and all reads go through these. A checkpoint
writes the changes to the databases in key order, so that many changes share one page. This is the idea of the
log-structured merge tree (O'Neil and others, 1996).

The database ``log`` holds one batch after the other, cut into pieces that fit into LMDB's pages. The key of a piece has
the number of its transaction in the high bits, and the number of the piece in the low bits. A batch is

    size 8, checksum 4 (crc32 of the changes), spare 4, number of records in the store 8, then the changes:
    database 1 (with 128: deleted), size of the key 4, of the value 4, key, value

The value of a status block is a list of the entries that differ: slot 4, entry 4 each. Every change is absolute, so
replaying a batch over databases that already have some of it gives the same result. New records are not in the log.
They are appended to the databases in the same transaction, because that changes the fewest pages.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tastypy_fast._core.cache_entry cimport pack
from tastypy_fast._core.memtable cimport Memtable, MergedCursor, MergedTransaction, patched_if
from tastypy_fast._core.status_block cimport check_changes

from zlib import crc32

from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError

__all__ = ["WriteAheadLog", "LoggedTransaction", "LoggedCursor"]

cdef enum:
    VALUES
    ORDER
    STATUS
    DELETED = 128
    # The size of a change before its key.
    CHANGE_HEAD = 9
    # LMDB stores larger values in pages of their own.
    PIECE_SIZE = 2000
    # The key of a piece has the number of its transaction above these bits.
    PIECE_BITS = 20

cdef struct Head:
    uint64_t size
    uint32_t checksum
    uint32_t spare
    int64_t count

cdef struct ChangeHead:
    uint32_t key
    uint32_t value


cdef tuple make_memtables():
    return Memtable(True), Memtable(False), Memtable(True)


@cython.final
cdef class WriteAheadLog:
    """The write-ahead log of one store. ``handles`` are the databases values, order and status.

    A plain dict has no status database. Any object may replace its handle, because it is never used.
    """

    def __init__(self, log not None, tuple handles not None):
        self.log = log
        self.handles = handles
        self.reset()

    cpdef int reset(self) except -1:
        """Forget the log in memory. The next read replays it from its beginning."""
        self.memtables = make_memtables()
        self.count = 0
        self.size = 0
        self.first = self.last = None
        self.snapshot_id = -1
        return 0

    def __len__(self):
        """Return how many changes are in the log and not in the databases."""
        return sum([len(memtable) for memtable in self.memtables])

    @property
    def index_changes(self):
        """Return how many of the changes are in the index."""
        return len(self.memtables[ORDER])

    @property
    def log_size(self):
        """Return the size of the log in bytes."""
        return self.size

    cpdef object merged_view(self, object txn, bint buffers=False):
        """Return a read transaction that includes the changes in the log. With an empty log it is ``txn`` itself.

        This first replays the batches that were appended since the last read. A transaction of ``buffers`` does not,
        because it belongs to a snapshot for which this was done.
        """
        cdef long long number
        if not buffers:
            number = txn.id()
            if number != self.snapshot_id:
                try:
                    self.catch_up(txn)
                    self.snapshot_id = number
                except BaseException:
                    # Replay everything at the next read, because an interrupt may have come in the middle of a batch.
                    self.reset()
                    raise
        return txn if self.last is None else MergedTransaction(txn, self.handles, self.memtables, self.count)

    cdef int catch_up(self, object txn) except -1:
        """Replay the batches that were appended to the log since the last read."""
        cdef Head head
        cdef list pieces
        cdef bytes data
        cdef Py_ssize_t at = 0
        cursor = txn.cursor(self.log)
        if not cursor.first():
            if self.last is not None:
                self.reset()
            return 0
        if cursor.key() != self.first:
            self.reset()
            self.first = cursor.key()
        else:
            cursor.set_key(self.last)
            if not cursor.next():
                return 0
        pieces = list(cursor.iternext())
        data = b"".join([piece for _, piece in pieces])
        while at < len(data):
            if len(data) - at < <Py_ssize_t>sizeof(Head):
                raise PersistentOrderedDictIntegrityError("the log is cut short")
            memcpy(&head, PyBytes_AS_STRING(data) + at, sizeof(Head))
            at += sizeof(Head)
            if head.size > <uint64_t>(len(data) - at):
                raise PersistentOrderedDictIntegrityError("the log is cut short")
            batch = data[at:at + <Py_ssize_t>head.size]
            if crc32(batch) != head.checksum:
                raise PersistentOrderedDictIntegrityError("a batch of the log does not match its checksum")
            self.replay_batch(batch)
            self.count = head.count
            at += head.size
        self.size += len(data)
        self.last = pieces[len(pieces) - 1][0]
        return 0

    cdef int replay_batch(self, bytes batch) except -1:
        cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(batch)
        cdef Py_ssize_t at = 0, size = PyBytes_GET_SIZE(batch)
        cdef ChangeHead head
        cdef unsigned char kind
        cdef bytes key
        cdef Memtable memtable
        while at < size:
            kind = data[at]
            if size - at < CHANGE_HEAD:
                raise PersistentOrderedDictIntegrityError("a batch of the log cannot be read")
            memcpy(&head, data + at + 1, sizeof(ChangeHead))
            at += CHANGE_HEAD
            if head.key > size - at or head.value > size - at - <Py_ssize_t>head.key or kind & ~DELETED > STATUS:
                raise PersistentOrderedDictIntegrityError("a batch of the log cannot be read")
            key = PyBytes_FromStringAndSize(<const char*>data + at, head.key)
            at += head.key
            memtable = self.memtables[kind & ~DELETED]
            if kind & DELETED:
                memtable.put(key, None)
            elif kind == STATUS:
                check_changes(data + at, head.value)
                memtable.patch(key, PyByteArray_FromStringAndSize(<const char*>data + at, head.value))
            else:
                memtable.put(key, PyBytes_FromStringAndSize(<const char*>data + at, head.value))
            at += head.value
        return 0

    # Writing

    def append(self, txn not None, work not None):
        """Call ``work`` with a transaction that collects its changes, and append them to the log.

        Returns that transaction, for ``apply()`` after the commit of ``txn``.
        """
        cdef LoggedTransaction logged = LoggedTransaction(self, txn)
        cdef long long number
        cdef bytes batch
        work(logged)
        batch = logged.encoded()
        number = <long long>txn.id() << PIECE_BITS
        logged.pieces = [(pack(number + start // PIECE_SIZE), batch[start:start + PIECE_SIZE])
                         for start in range(0, len(batch), PIECE_SIZE)]
        if txn.cursor(self.log).putmulti(logged.pieces, append=True)[1] != len(logged.pieces):
            raise PersistentOrderedDictIntegrityError("the log has batches of later transactions")
        logged.size = len(batch)
        return logged

    def apply(self, LoggedTransaction logged not None):
        """Add the changes of a committed ``append()`` to the memtables.

        If an interrupt prevents this call, ``catch_up()`` replays the changes from the log.
        """
        cdef Memtable memtable, added
        if not logged.pieces:
            return
        try:
            for position in range(len(self.memtables)):
                memtable, added = self.memtables[position], logged.memtables[position]
                memtable.update(added)
            self.count = logged.count
            self.size += logged.size
            if self.first is None:
                self.first = logged.pieces[0][0]
            self.last = logged.pieces[len(logged.pieces) - 1][0]
        except BaseException:
            self.reset()
            raise

    def sorted_runs(self, Py_ssize_t most, Py_ssize_t size):
        """Yield pairs of a database and a run of its changes in key order. See ``Memtable.sorted_runs()``."""
        for position in range(len(self.memtables)):
            for run in (<Memtable>self.memtables[position]).sorted_runs(most, size):
                yield self.handles[position], run

    def checkpoint_run(self, txn not None, db not None, list run not None):
        """Write a run of changes into its database."""
        cdef bint numbers = db is not self.handles[ORDER]
        cdef long long last = -1, number
        cdef list replaced = [], appended = []
        cursor = txn.cursor(db)
        if numbers and cursor.last():
            memcpy(&last, PyBytes_AS_STRING(cursor.key()), 8)
        for change in run:
            value = (<tuple>change)[1]
            if value is None:
                delete_near(cursor, (<tuple>change)[0])
                continue
            if type(value) is bytearray:
                change = (<tuple>change)[0], patched_if(value, txn.get((<tuple>change)[0], None, db))
            if numbers:
                memcpy(&number, PyBytes_AS_STRING((<tuple>change)[0]), 8)
                if number > last:
                    appended.append(change)
                    continue
            replaced.append(change)
        if replaced:
            cursor.putmulti(replaced)
        if appended:
            # Append, because that fills the pages. Do so after the deletions, because these may remove the last key.
            cursor.putmulti(appended, append=True)

    def truncate(self, txn not None):
        """Empty the log after a checkpoint, because the databases have all its changes."""
        txn.drop(self.log, delete=False)


cdef int delete_near(object cursor, object key) except -1:
    """Delete a key if it exists, with a cursor of LMDB.

    A cursor stays at its page. So keys that are deleted in order need no search from the root, as ``delete()`` of the
    transaction does.
    """
    if cursor.set_key(key):
        cursor.delete()
    return 0


cdef LoggedTransaction as_logged(object txn):
    """Return ``txn`` if its changes go into the log, and None if it is LMDB's own transaction."""
    return <LoggedTransaction>txn if type(txn) is LoggedTransaction else None


@cython.final
cdef class LoggedTransaction(MergedTransaction):
    """A write transaction that collects the changes of the logged databases, and changes other databases at once."""

    def __init__(self, WriteAheadLog wal not None, txn not None):
        cdef object merged = txn
        if wal.last is not None:
            merged = MergedTransaction(txn, wal.handles, wal.memtables, wal.count)
        count = merged.stat(wal.handles[VALUES])["entries"]
        MergedTransaction.__init__(self, merged, wal.handles, make_memtables(), count)
        self.lmdb_txn = txn
        self.last_logged = (<Memtable>wal.memtables[VALUES]).largest

    cdef int patch_statuses(self, list items) except -1:
        """Change status blocks. ``items`` are pairs of a block's key and its StatusChanges, one after the other.

        A transaction may patch each block only once, because the memtable owns the bytearray.
        """
        cdef Memtable memtable = self.memtables[STATUS]
        for key, changes in items:
            if key in memtable.changes:
                raise AssertionError("a transaction writes a status block twice")
            memtable.patch(key, changes)
        return 0

    def cursor(self, db):
        """Return a cursor that reads and collects changes."""
        cdef Memtable memtable = self.memtable_of(db)
        cursor = self.txn.cursor(db)
        return cursor if memtable is None else LoggedCursor(cursor, memtable, self, db)

    def put(self, bytes key not None, bytes value not None, bint dupdata=True, bint overwrite=True, bint append=False,
            db=None):
        """Put a pair, and return whether it was put, as LMDB does."""
        cdef Memtable memtable = self.memtable_of(db)
        if memtable is None:
            return self.lmdb_txn.put(key, value, dupdata, overwrite, append, db)
        if memtable is self.memtables[STATUS]:
            raise AssertionError("statuses are written by patch_statuses()")
        if memtable.integer_keys:
            memtable.put(key, value)
            return True
        # Each new entry of the index belongs to a new record.
        if self.find(key, db) is None:
            self.count += 1
        elif not overwrite:
            return False
        memtable.put(key, value)
        return True

    def delete(self, bytes key not None, value=b"", db=None):
        """Delete a key, and return whether it existed, as LMDB does."""
        cdef Memtable memtable = self.memtable_of(db)
        if memtable is None:
            return self.lmdb_txn.delete(key, value, db)
        if self.find(key, db) is None:
            return False
        memtable.put(key, None)
        self.count -= not memtable.integer_keys
        return True

    cdef long long last_seq(self) except -2:
        """Return the largest seq of a record, whether it is deleted in the log or not; -1 if there is none.

        LMDB appends only keys that follow all its own keys, and keeps those that are deleted in the log.
        """
        cdef long long last = -1
        cursor = self.lmdb_txn.cursor(self.handles[VALUES])
        if cursor.last():
            memcpy(&last, PyBytes_AS_STRING(cursor.key()), 8)
        return max(last, self.last_logged)

    cdef int delete_existing(self, bytes key, object db) except -1:
        """Delete a key without a lookup, because the caller knows that it exists."""
        cdef Memtable memtable = self.memtable_of(db)
        memtable.put(key, None)
        self.count -= not memtable.integer_keys
        return 0

    cdef int add_new_keys(self, object items) except -1:
        """Put pairs into the index without a lookup, because the caller knows that none of the keys exists."""
        cdef Memtable memtable = self.memtables[ORDER]
        for key, value in items:
            memtable.put(key, value)
            self.count += 1
        return 0

    cdef object put_many(self, list items, object db, bint overwrite):
        cdef Memtable memtable = self.memtable_of(db)
        cdef Py_ssize_t added = 0
        cdef set there
        if memtable is self.memtables[STATUS]:
            raise AssertionError("statuses are written by patch_statuses()")
        if memtable.integer_keys:
            for key, value in items:
                memtable.put(key, value)
            return len(items), len(items)
        there = {key for key, _ in self.cursor(db).getmulti([key for key, _ in items])}
        for key, value in items:
            if key in there or memtable.changes.get(key) is not None:
                if not overwrite:
                    continue
            else:
                self.count += 1
            memtable.put(key, value)
            added += 1
        return len(items), added

    def encoded(self):
        """Encode the changes as a batch for the log. It is empty if nothing was changed."""
        cdef Head head
        cdef ChangeHead change
        cdef bytes batch
        cdef Py_ssize_t at = sizeof(Head), size = sizeof(Head)
        cdef int kind
        cdef char* data
        for kind in range(len(self.memtables)):
            for key, value in (<Memtable>self.memtables[kind]).changes.items():
                size += CHANGE_HEAD + PyBytes_GET_SIZE(key) + (0 if value is None else len(value))
        if size == sizeof(Head):
            return b""
        batch = PyBytes_FromStringAndSize(NULL, size)
        data = PyBytes_AS_STRING(batch)
        for kind in range(len(self.memtables)):
            for key, value in (<Memtable>self.memtables[kind]).changes.items():
                change.key = PyBytes_GET_SIZE(key)
                change.value = 0 if value is None else len(value)
                data[at] = <char>(kind | DELETED if value is None else kind)
                memcpy(data + at + 1, &change, sizeof(ChangeHead))
                at += CHANGE_HEAD
                memcpy(data + at, PyBytes_AS_STRING(key), change.key)
                at += change.key
                if type(value) is bytearray:
                    memcpy(data + at, PyByteArray_AS_STRING(value), change.value)
                elif value is not None:
                    memcpy(data + at, PyBytes_AS_STRING(value), change.value)
                at += change.value
        head.size = size - sizeof(Head)
        head.checksum = crc32(memoryview(batch)[sizeof(Head):])
        head.spare = 0
        head.count = self.count
        memcpy(data, &head, sizeof(Head))
        return batch


@cython.final
cdef class LoggedCursor(MergedCursor):
    """A cursor of a LoggedTransaction on the database ``db``."""

    cdef LoggedTransaction txn
    cdef object db

    def __init__(self, cursor not None, Memtable memtable not None, LoggedTransaction txn not None, db not None):
        MergedCursor.__init__(self, cursor, memtable)
        self.txn = txn
        self.db = db

    def putmulti(self, items, bint dupdata=True, bint overwrite=True, bint append=False):
        """Put pairs, and return how many there were and how many were put, as LMDB does."""
        if append and self.memtable.integer_keys:
            # Write new records to LMDB, because they are not scattered and the log would write them twice.
            return self.txn.lmdb_txn.cursor(self.db).putmulti(items, dupdata, overwrite, True)
        return self.txn.put_many(list(items), self.db, overwrite)
