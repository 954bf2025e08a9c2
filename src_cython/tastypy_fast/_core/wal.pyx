"""The log of a private store: syncs whose changes lie too far apart to be written where they belong, one by one.

A sync of 1,000 scattered values changes 900 pages of the databases, and as a batch in the log 30. What is in the log
and not merged into the databases yet is in memory, too, and laid over everything that is read. Merged in long sorted
runs, many changes meet in one page. (An idea of the log-structured merge tree: O'Neil and others, 1996.)

The database ``log`` has the batches one behind the other, in pieces that fit into LMDB's pages; a piece's key is the
number of its transaction, and below that its own. A batch is

    size 8, checksum 4 (crc32 of the changes), spare 4, records in the store with it 8, and its changes:
    database 1 (with 128: deleted), size of the key 4, of the value 4, key, value

where the value of a block of statuses is the entries that differ: slot 4, entry 4 each. Everything is absolute: a
batch may be laid over databases that have it, or a part of it, already. New records are not in it: they are behind all
others, so that writing them where they belong changes the fewest pages, and is done in the same transaction.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tastypy_fast._core.cache_entry cimport pack
from tastypy_fast._core.memtable cimport Memtable, MergedTransaction, MergedCursor, patched_if
from tastypy_fast._core.status_block cimport check_changes

from zlib import crc32

from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError

__all__ = ["WriteAheadLog", "LoggedTransaction", "LoggedCursor"]

cdef enum:
    VALUES
    ORDER
    STATUS
    DELETED = 128
    # The bytes before a change's key.
    CHANGE_HEAD = 9
    # What LMDB keeps in a page beside others, and not in pages of its own.
    PIECE = 2000
    # The number of a transaction in the key of a piece is above these bits.
    PIECES = 20

cdef struct Head:
    uint64_t size
    uint32_t checksum
    uint32_t spare
    int64_t count

cdef struct ChangeHead:
    uint32_t key
    uint32_t value


cdef tuple make_layers():
    return Memtable(True), Memtable(False), Memtable(True)


@cython.final
cdef class WriteAheadLog:
    """The log of one store, and what it says. ``handles``: the databases values, order and status (or None)."""

    def __init__(self, log not None, tuple handles not None):
        self.log = log
        self.handles = handles
        self.reset()

    cpdef int reset(self) except -1:
        """Know nothing of the log: it is read from its beginning, or was just emptied."""
        self.layers = make_layers()
        self.count = 0
        self.size = 0
        self.first = self.last = None
        self.seen = -1
        return 0

    def __len__(self):
        """How many changes are in the log."""
        return sum([len(layer) for layer in self.layers])

    @property
    def log_size(self):
        """How many bytes of changes are in the log."""
        return self.size

    def merged_view(self, txn not None, bint buffers=False):
        """A read transaction with what the log has over it; as it is where that is nothing. One of ``buffers`` is not
        looked at: it reads beside another one."""
        cdef long long number
        if not buffers:
            number = txn.id()
            if number != self.seen:
                try:
                    self.catch_up(txn)
                    self.seen = number
                except BaseException:
                    # (an interrupt perhaps; the next one reads all of it)
                    self.reset()
                    raise
        return txn if self.last is None else MergedTransaction(txn, self.handles, self.layers, self.count)

    cdef int catch_up(self, object txn) except -1:
        """Read what has come into the log."""
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
                raise PersistentOrderedDictIntegrityError("a batch of the log is not as it was written")
            self.take_batch(batch)
            self.count = head.count
            at += head.size
        self.size += len(data)
        self.last = pieces[len(pieces) - 1][0]
        return 0

    cdef int take_batch(self, bytes batch) except -1:
        cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(batch)
        cdef Py_ssize_t at = 0, size = PyBytes_GET_SIZE(batch)
        cdef ChangeHead head
        cdef unsigned char kind
        cdef bytes key
        cdef Memtable layer
        while at < size:
            kind = data[at]
            if size - at < CHANGE_HEAD:
                raise PersistentOrderedDictIntegrityError("a batch of the log does not parse")
            memcpy(&head, data + at + 1, sizeof(ChangeHead))
            at += CHANGE_HEAD
            if head.key > size - at or head.value > size - at - <Py_ssize_t>head.key or kind & ~DELETED > STATUS:
                raise PersistentOrderedDictIntegrityError("a batch of the log does not parse")
            key = PyBytes_FromStringAndSize(<const char*>data + at, head.key)
            at += head.key
            layer = self.layers[kind & ~DELETED]
            if kind & DELETED:
                layer.change(key, None)
            elif kind == STATUS:
                check_changes(data + at, head.value)
                layer.patch(key, PyByteArray_FromStringAndSize(<const char*>data + at, head.value))
            else:
                layer.change(key, PyBytes_FromStringAndSize(<const char*>data + at, head.value))
            at += head.value
        return 0

    # Writing

    def append(self, txn not None, work not None):
        """Have ``work`` change the databases, but only in the log: what apply() wants when it is committed."""
        cdef LoggedTransaction recorder = LoggedTransaction(self, txn)
        cdef long long number
        cdef bytes batch
        work(recorder)
        batch = recorder.encoded()
        number = <long long>txn.id() << PIECES
        recorder.pieces = [(pack(number + place // PIECE), batch[place:place + PIECE])
                           for place in range(0, len(batch), PIECE)]
        if txn.cursor(self.log).putmulti(recorder.pieces, append=True)[1] != len(recorder.pieces):
            raise PersistentOrderedDictIntegrityError("the log has batches of later transactions")
        recorder.size = len(batch)
        return recorder

    def apply(self, LoggedTransaction recorder not None):
        """What was noted is in the log. (Where an interrupt keeps this from being called, catch_up() finds it.)"""
        cdef Memtable layer, changed
        if not recorder.pieces:
            return
        try:
            for position in range(len(self.layers)):
                layer, changed = self.layers[position], recorder.layers[position]
                layer.take(changed)
            self.count = recorder.count
            self.size += recorder.size
            if self.first is None:
                self.first = recorder.pieces[0][0]
            self.last = recorder.pieces[len(recorder.pieces) - 1][0]
        except BaseException:
            self.reset()
            raise

    def sorted_runs(self, Py_ssize_t most, Py_ssize_t size):
        """What is to be merged, as pairs of a database and a run of changes in order."""
        for position in range(len(self.layers)):
            for run in (<Memtable>self.layers[position]).sorted_runs(most, size):
                yield self.handles[position], run

    def checkpoint_run(self, txn not None, db not None, list run not None):
        """Put a run of changes into its database."""
        cdef bint numbers = db is not self.handles[ORDER]
        cdef long long last = -1, number
        cdef list placed = [], appended = []
        cursor = txn.cursor(db)
        if numbers and cursor.last():
            memcpy(&last, PyBytes_AS_STRING(cursor.key()), 8)
        for change in run:
            value = (<tuple>change)[1]
            if value is None:
                txn.delete((<tuple>change)[0], db=db)
                continue
            if type(value) is bytearray:
                change = (<tuple>change)[0], patched_if(value, txn.get((<tuple>change)[0], None, db))
            if numbers:
                memcpy(&number, PyBytes_AS_STRING((<tuple>change)[0]), 8)
                if number > last:
                    appended.append(change)
                    continue
            placed.append(change)
        if placed:
            cursor.putmulti(placed)
        if appended:
            # (so that pages are filled; after the deletions, which may have taken the last one away)
            cursor.putmulti(appended, append=True)

    def truncate(self, txn not None):
        """Everything is merged."""
        txn.drop(self.log, delete=False)


@cython.final
cdef class LoggedTransaction(MergedTransaction):
    """A write transaction whose changes to a journal's databases go into the log. Others go where they belong."""

    cdef object under
    # What came of it in the log.
    cdef list pieces
    cdef Py_ssize_t size

    def __init__(self, WriteAheadLog wal not None, txn not None):
        cdef object under = txn
        if wal.last is not None:
            under = MergedTransaction(txn, wal.handles, wal.layers, wal.count)
        MergedTransaction.__init__(self, under, wal.handles, make_layers(), under.stat(wal.handles[VALUES])["entries"])
        self.under = txn

    def patch_statuses(self, list items not None):
        """Change blocks of statuses: pairs of a key, and of the entries that may differ, one StatusChange behind the
        other. (A transaction writes each block once.)"""
        cdef Memtable layer = self.layers[STATUS]
        for key, changes in items:
            if key in layer.changes:
                raise AssertionError("a block of statuses is written twice in one transaction")
            layer.patch(key, changes)

    def cursor(self, db):
        """A cursor that changes, too."""
        cdef Memtable layer = self.layer_of(db)
        cursor = self.txn.cursor(db)
        return cursor if layer is None else LoggedCursor(cursor, layer, self, db)

    def put(self, bytes key not None, bytes value not None, bint dupdata=True, bint overwrite=True, bint append=False,
            db=None):
        """Whether it was put, as LMDB's."""
        cdef Memtable layer = self.layer_of(db)
        if layer is None:
            return self.under.put(key, value, dupdata, overwrite, append, db)
        if layer is self.layers[STATUS]:
            raise AssertionError("statuses are noted by patch_statuses()")
        if layer.numbers:
            layer.change(key, value)
            return True
        # An entry of the index more is a record more.
        if self.look(key, db) is None:
            self.count += 1
        elif not overwrite:
            return False
        layer.change(key, value)
        return True

    def delete(self, bytes key not None, value=b"", db=None):
        """Whether it was there, as LMDB's."""
        cdef Memtable layer = self.layer_of(db)
        if layer is None:
            return self.under.delete(key, value, db)
        if self.look(key, db) is None:
            return False
        layer.change(key, None)
        self.count -= not layer.numbers
        return True

    def add_new(self, items not None):
        """Put pairs into the index whose keys are known not to be there."""
        cdef Memtable layer = self.layers[ORDER]
        for key, value in items:
            layer.change(key, value)
            self.count += 1

    cdef object put_many(self, list items, object db, bint overwrite):
        cdef Memtable layer = self.layer_of(db)
        cdef Py_ssize_t added = 0
        cdef set there
        if layer is self.layers[STATUS]:
            raise AssertionError("statuses are noted by patch_statuses()")
        if layer.numbers:
            for key, value in items:
                layer.change(key, value)
            return len(items), len(items)
        there = {key for key, _ in self.cursor(db).getmulti([key for key, _ in items])}
        for key, value in items:
            if key in there or layer.changes.get(key) is not None:
                if not overwrite:
                    continue
            else:
                self.count += 1
            layer.change(key, value)
            added += 1
        return len(items), added

    def encoded(self):
        """The batch for the log; empty when nothing was changed."""
        cdef Head head
        cdef ChangeHead change
        cdef bytes batch
        cdef Py_ssize_t at = sizeof(Head), size = sizeof(Head)
        cdef int kind
        cdef char* data
        for kind in range(len(self.layers)):
            for key, value in (<Memtable>self.layers[kind]).changes.items():
                size += CHANGE_HEAD + PyBytes_GET_SIZE(key) + (0 if value is None else len(value))
        if size == sizeof(Head):
            return b""
        batch = PyBytes_FromStringAndSize(NULL, size)
        data = PyBytes_AS_STRING(batch)
        for kind in range(len(self.layers)):
            for key, value in (<Memtable>self.layers[kind]).changes.items():
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
    """A cursor of a LoggedTransaction on ``db``."""

    cdef LoggedTransaction recorder
    cdef object db

    def __init__(self, cursor not None, Memtable layer not None, LoggedTransaction recorder not None, db not None):
        MergedCursor.__init__(self, cursor, layer)
        self.recorder = recorder
        self.db = db

    def putmulti(self, items, bint dupdata=True, bint overwrite=True, bint append=False):
        """How many pairs there were, and how many were put, as LMDB's."""
        if append and self.layer.numbers:
            # Behind all others there is nothing scattered: twice written would be twice the work.
            return self.recorder.under.cursor(self.db).putmulti(items, dupdata, overwrite, True)
        return self.recorder.put_many(list(items), self.db, overwrite)
