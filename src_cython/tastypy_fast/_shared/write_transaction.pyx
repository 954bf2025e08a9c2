"""Make operations on a shared store atomic: each is one write transaction, or a part of a block that is one.

For example, ``shared.set[key] += 1`` is atomic, because the handle runs the read and the write between
``begin_block()`` and ``end_block()``. ``begin_block()`` acquires three locks in this order.

1. ``lock`` excludes the other threads of this process.
2. The writer lock excludes the other processes (see ``writer_lock``).
3. LMDB's write transaction reads the newest commit, and holds LMDB's own mutex.

So no other writer can commit between the read and the write. ``end_block()`` commits, and only then releases the locks.
Readers need none of them, because each reads a snapshot.

A transaction has its own cache, which reads through the transaction. The cache collects changes, as in a private store
between two syncs, and is flushed into the transaction before the commit. The module is compiled, because a signal
handler must not raise between acquiring a lock and recording that it is held.
"""

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from posix.unistd cimport close as close_file

from tastypy_fast._core.cache_entry cimport UNKNOWN, Entry, pack
from tastypy_fast._core.key_codec cimport MAX_INDEX_KEY
from tastypy_fast._core.locks cimport Lock
from tastypy_fast._core.record_codec cimport build_record
from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.sync_writer cimport unpack_seq
from tastypy_fast._core.write_cache cimport FEW, WriteCache
from tastypy_fast._lmdb.flush_notes cimport rewrite
from tastypy_fast._shared.undo_log cimport UndoLog

from os import sysconf
from sys import maxsize

from tastypy_fast._lmdb.engine import MapFull
from tastypy_fast.exceptions import CalledClosedTrackerError, NotLockedError, StorageError

__all__ = ["BLOCK", "MANUAL", "OPERATION", "SAVEPOINT", "TransactionContext", "WriteTransaction"]

cdef enum:
    # The free space in the map at the beginning of a block: ROOM, or an eighth of a small map, but at least LEAST_ROOM.
    # Without it, the map could become full inside the block, which cannot be run again.
    ROOM = 1 << 30
    LEAST_ROOM = 1 << 18
    # About how many bytes a small transaction writes: four or five pages, and two more of the list of free pages, which
    # is long while a slot protects a flush point.
    COMMIT_SIZE = 24 << 10
    # The background thread flushes when so many bytes are waiting. At the limit the commit flushes itself, because
    # writers must not outrun the disk.
    FLUSH_SIZE = 4 << 20
    FLUSH_LIMIT = 16 << 20

# The entry of ``meta`` with the number of the transaction of the last sync.
cdef bytes LAST_SYNC = b"sync"

cdef long long PAGE = sysconf("SC_PAGE_SIZE")


@cython.final
cdef class WriteTransaction(StoreBase):
    """The write transaction of one store in this process. ``snapshot`` is LMDB's transaction while one is open.

    Blocks of four kinds nest.

    OPERATION: one operation. If it is the outermost block and raises, it is rolled back.
    BLOCK: several operations, which are committed even if one raises.
    SAVEPOINT: several operations, which are all rolled back if one raises. Inside another block it is a nested
    transaction of LMDB.
    MANUAL: a BLOCK that ``lock()`` begins and ``unlock()`` ends.
    """

    def __init__(self, str path not None, bint gzipped, store not None):
        self.store = store
        self.path = path
        self.gzipped = gzipped
        self.writable = True
        self.undo_log = UndoLog(self)
        self.reset()

    def reset(self):
        """Start without an open transaction, at opening and in a forked child."""
        self.lock = Lock()
        self.is_patient = True
        self.db = None
        self.snapshot = None
        self.blocks = []
        self.parents = []
        self.marks = []
        self.failure = None
        self.flushes = False
        self.expected_id = -1
        if self.images is not None:
            self.images.abandon()
        self.epoch += 1
        self.writer_lock = None
        self.slot = None
        self.notes = None
        self.waits = False
        self.waiting = 0
        if self.cache is not None:
            self.cache.forget()

    def leave_to_parent(self, db):
        """Keep LMDB's environment ``db`` and the open transactions alive for ever, in a forked child.

        Closing or aborting them would wait for ever, because a thread that does not exist in the child has their lock.
        """
        for item in (db, self.snapshot, *self.parents):
            Py_INCREF(item)

    def close(self):
        """Refuse all later use, and close the file of the writer lock."""
        self.db = self.writer_lock = None
        self.slot = None
        self.notes = None
        self.closed = True

    def attach(self, WriteCache cache not None):
        """Read and write through this cache."""
        cache.copies = True
        self.cache = cache

    def attach_databases(self, StoreBase store not None, bint writes):
        """Use the databases of ``store``, and its LMDB environment if that was opened to write."""
        self.values = store.values
        self.order = store.order
        self.status = store.status
        self.meta = store.meta
        self.images = store.images
        self.claims = store.claims
        self.db = store.db if writes else None
        self.room = 0

    def attach_flush_points(self, ReaderSlot slot, FlushNotes notes):
        """Let each transaction check the slot of the flush point before it writes."""
        self.slot = slot
        self.notes = notes

    def attach_worker(self, number, worker_slots):
        """Use the number and the slots of this process's worker, so that its own claims are decided in memory."""
        self.worker_number = number
        self.worker_slots = worker_slots

    def detach_worker(self):
        """Mark this process as no longer a worker."""
        self.worker_number = 0
        self.worker_slots = None

    # Methods that a cache calls

    def begin_reading(self, bint buffers=False):
        raise RuntimeError("the cache of a write transaction was used outside the transaction")

    def count(self):
        return self.snapshot.stat(self.values)["entries"]

    def next_number(self, txn):
        return self.store.next_number(txn)

    def has_large_values(self):
        # Reading a key without its value needs a transaction that returns views of the map, and this one does not.
        return False

    def write(self, work):
        """Run ``work`` in the open transaction."""
        try:
            return work(self.snapshot)
        except Exception as error:
            # Let nothing be committed, because LMDB cannot continue a transaction after an error.
            self.failure = error
            self.reraise(error)

    def write_sync(self, work, scattered, size):
        """Run ``work`` in the open transaction, because a shared store has no write-ahead log."""
        self.written += size + scattered * PAGE
        return self.write(work)

    def flush(self):
        """Do nothing, because only commits are flushed."""

    def follow_files(self):
        self.store.check_files()

    def stop_slot_of(self, unsigned long long worker, unsigned long long slot, unsigned long long position):
        return self.store.stop_slot_of(worker, slot, position)

    cdef int raise_translated(self, object error) except -1:
        """Raise the exception of this package for an error of LMDB. Returns for any other error."""
        if isinstance(error, Exception):
            translated = self.translated(error)
            if translated is not error:
                raise translated from error
        return 0

    def translated(self, error):
        return self.store.translated(error)

    def damaged(self, reason):
        return self.store.damaged(reason)

    # Blocks

    cpdef int begin_block(self, int kind) except -1:
        """Begin a block. The outermost block waits for the other threads, and then for the other processes."""
        self.lock.acquire()
        try:
            if not self.blocks:
                self.begin(kind)
            elif kind == MANUAL and self.blocks[len(self.blocks) - 1] == OPERATION:
                # Refuse, because unlock() could not distinguish this block from the block of the operation.
                raise NotLockedError("lock() was called in the middle of an operation of the same store; "
                                     "call it before the operation")
            elif self.failure is not None:
                raise self.store.aborted_earlier(self.failure)
            elif kind == SAVEPOINT:
                self.cache.sync(False)
                mark = self.images.mark()
                child = self.db.begin(None, self.snapshot, True)
                self.marks.append(mark)
                self.parents.append(self.snapshot)
                self.snapshot = child
            self.blocks.append(kind)
        except BaseException:
            if not self.blocks and self.snapshot is not None:
                self.roll_back()
            self.lock.release()
            raise
        return 0

    # A signal handler runs between any two lines of Python, and may use this store. So Python code is called only in
    # two states. Either no transaction is open, so that the handler gets one of its own. Or ``blocks`` says that one is
    # open, so that the operation of the handler becomes a part of it. In any other state the handler would use a
    # transaction that has ended.

    cpdef int end_block(self, bint failed) except -1:
        """End the innermost block: commit it, or roll it back if it ``failed`` and its kind demands it."""
        cdef int kind = self.blocks[len(self.blocks) - 1]
        try:
            if len(self.blocks) == 1:
                self.end_outermost(failed, failed and kind != BLOCK and kind != MANUAL)
            elif kind == SAVEPOINT:
                self.end_savepoint(failed or self.failure is not None)
            else:
                self.blocks.pop()
        finally:
            self.lock.release()
        return 0

    cdef int end_outermost(self, bint failed, bint undone) except -1:
        failure = self.failure
        if failure is None and not undone:
            return self.commit()
        self.roll_back()
        if failure is not None and not failed:
            raise self.store.aborted_earlier(failure)
        return 0

    cpdef int end_all_blocks(self) except -1:
        """End all blocks of this thread, and commit them."""
        if self.blocks and self.lock.is_mine():
            self.epoch += 1
            while self.blocks:
                self.end_user_block(False)
        return 0

    def unlock(self):
        """End the block that ``lock()`` began."""
        if not self.lock.is_mine() or MANUAL not in self.blocks:
            raise NotLockedError("unlock() without lock(): this thread does not hold the store's lock")
        if self.blocks[len(self.blocks) - 1] != MANUAL:
            raise NotLockedError("unlock() inside a block that was begun after lock(); end that block first")
        self.end_user_block(False)

    cdef int end_user_block(self, bint failed) except -1:
        """End a block that the user began. It cannot be run again when the map is full, so that is an error."""
        try:
            self.end_block(failed)
        except MapFull as error:
            raise self.store.aborted_earlier(error) from error
        return 0

    cdef int poison(self) except -1:
        """Prevent the commit of the transaction, because its blocks end out of order."""
        if self.failure is None:
            self.failure = NotLockedError("blocks ended out of order, as coroutines and generators may end them; "
                                          "do not await or yield inside a block")
        return 0

    cdef int end_block_if(self, long long epoch, bint failed) except -1:
        """End the innermost block, unless all blocks that were open in ``epoch`` have already ended."""
        if epoch == self.epoch:
            self.end_block(failed)
        return 0

    def written_directly(self):
        """Make the cache read again, because the transaction was changed without it.

        The cache must have no unwritten changes, because this drops them.
        """
        self.cache.revert()
        self.disk_version += 1
        self.wrote = True

    cdef int begin(self, int kind) except -1:
        cdef long long number
        cdef int file = -1, status = 0
        if self.closed:
            raise CalledClosedTrackerError("this store was closed; open it again to use it")
        self.repeats = False
        if self.needs_larger_map:
            self.store.grow()
            self.needs_larger_map = False
        self.recheck_files()
        if self.needs_flush:
            self.needs_flush = False
            self.store.flush()
        if self.flush_failed:
            file = self.store.open_data_file()
        try:
            self.begin_writing()
            if file >= 0:
                with nogil:
                    status = rewrite(file)
        finally:
            if file >= 0:
                close_file(file)
        if status != 0:
            self.roll_back()
            raise self.store.not_rewritten(status)
        self.flush_failed = False
        number = self.snapshot.id()
        if number != self.expected_id:
            self.room = 0
        if kind != OPERATION and self.room <= 0:
            self.make_room()
            number = self.snapshot.id()
        if number != self.expected_id:
            # Another process has written since the last transaction of this one.
            self.disk_version += 1
            self.is_next_seq_stale = True
        self.images.begin(number)
        self.wrote = False
        self.written = 0
        return 0

    cdef int begin_writing(self) except -1:
        if self.writer_lock is None:
            self.writer_lock = self.store.open_writer_lock()
        self.writer_lock.acquire(self.is_patient)
        try:
            while True:
                try:
                    self.snapshot = self.db.begin(None, None, True)
                    break
                except Exception as error:
                    self.store.prepare_writing(error)
            if self.slot is not None and not self.slot.is_set():
                self.protect_flush_point()
            return 0
        except BaseException:
            self.writer_lock.release()
            raise

    cdef int protect_flush_point(self) except -1:
        """Set the slot of the flush point again, before the transaction takes a page. Raises after a failed flush."""
        cdef long long number = -2 if self.slot.has_failed() else self.notes.older()
        if number >= 0 and self.slot.place(number):
            # A reader that was entering the table is in it when this one is.
            try:
                self.db.begin().abort()
            except Exception:
                pass
            if self.slot.is_set():
                return 0
        snapshot, self.snapshot = self.snapshot, None
        snapshot.abort()
        raise self.store.flush_refused()

    cdef int make_room(self) except -1:
        """Grow the map if it has little free space, because a block cannot be run again when the map is full.

        The free space is read inside the transaction, because other processes wrote until it began. ``room`` becomes
        half of what is left, because ``commit()`` subtracts estimates from it.
        """
        cdef dict facts
        cdef long long size, free, needed
        while True:
            facts = self.db.info()
            size = facts["map_size"]
            free = size - (<long long>facts["last_pgno"] + 1) * PAGE
            needed = min(ROOM, max(LEAST_ROOM, size // 8))
            if free >= needed:
                self.room = (free - needed) // 2
                return 0
            snapshot, self.snapshot = self.snapshot, None
            snapshot.abort()
            self.writer_lock.release()
            try:
                self.store.grow()
                refused = False
            except StorageError:
                # Continue, because the space that is left may be enough.
                refused = True
            self.begin_writing()
            if refused:
                return 0

    cdef int assign(self, bytes key, bytes record) except -1:
        """Assign a record to a key of the index, as the first change of the transaction."""
        cdef WriteCache cache = self.cache
        cdef bytes seq, before
        cdef long long number
        if not cache.is_stale() and cache.is_last_yielded(key):
            number = cache.last_yielded.record_seq
            before = cache.last_yielded.record
            self.snapshot.put(pack(number), record, True, True, False, self.values)
            self.images.note_record(number, 0, before)
        else:
            seq = self.snapshot.get(key, None, self.order)
            if seq is None:
                number = self.allocate()
                seq = pack(number)
                self.snapshot.put(key, seq, True, False, False, self.order)
                self.snapshot.put(seq, record, True, True, False, self.values)
                self.images.note_added(number)
            else:
                before = self.snapshot.replace(seq, record, self.values)
                if before is None:
                    raise cache.damaged(cache.key_of(key), "the index refers to a record that does not exist")
                self.images.note_record(unpack_seq(self, seq), 0, before)
        self.wrote = True
        self.written += PyBytes_GET_SIZE(record)
        cache.disk_count = -1
        cache.cache_version += 1
        return 0

    cdef bint write_only_entry(self) except -1:
        """Write the cache if its only change is one assignment, in fewer steps than a sync. Returns False if not."""
        cdef WriteCache cache = self.cache
        cdef Entry entry
        cdef bytes payload
        if self.wrote or cache.tracks or len(cache.entries) != 1 or len(cache.unresolved) != 1:
            return False
        entry = cache.unresolved[0]
        if not entry.exists or not entry.dirty or entry.disk_seq != UNKNOWN or entry.value is not None \
                or PyBytes_GET_SIZE(entry.key) > MAX_INDEX_KEY or cache.pinned.by_key:
            return False
        payload = entry.payload
        self.assign(entry.key, build_record(entry.codec, entry.key, payload, self.gzipped))
        # A finalizer may have changed the cache meanwhile. Leave the entry to a sync then.
        if entry.payload is payload and entry.disk_seq == UNKNOWN and len(cache.entries) == 1:
            cache.entries = {}
            cache.unresolved = []
            cache.dirty_count -= entry.counts_as_dirty
        return True

    cdef int look_up_old_keys(self) except -1:
        """Look up the keys that were assigned, if the first and the last exist, because then most of them probably do.

        The sync tries to insert every key that was not looked up before it looks it up.
        """
        cdef WriteCache cache = self.cache
        cdef Entry entry
        cdef list keys, left = []
        cache.begin_op()
        try:
            keys = cache.unresolved
            if len(keys) <= FEW or self.find(keys[0]) is None or self.find(keys[len(keys) - 1]) is None:
                return 0
            for item in keys:
                entry = item
                seq = self.find(entry)
                if seq is None:
                    left.append(entry)
                else:
                    entry.disk_seq = entry.seq = unpack_seq(self, seq)
            cache.unresolved = left
        finally:
            cache.end_op()
        return 0

    cdef object find(self, Entry entry):
        """Return what the index has for the key of an entry, or None if it is missing or may be another key's."""
        if PyBytes_GET_SIZE(entry.key) > MAX_INDEX_KEY or not entry.exists or entry.disk_seq != UNKNOWN:
            return None
        return self.snapshot.get(entry.key, None, self.order)

    cdef int commit(self) except -1:
        cdef long long number
        cdef bint flush, is_asked = False, is_due = False
        try:
            while True:
                while self.cache.has_changes():
                    if not self.write_only_entry():
                        self.look_up_old_keys()
                        self.cache.sync(False)
                if self.failure is not None:
                    raise self.store.aborted_earlier(self.failure)
                if is_asked or not self.wrote or self.images.count() < self.sync_at:
                    break
                # This runs Python code, and so may run a signal handler that changes something, which must be written
                # whether the sync is due or not.
                is_asked = True
                is_due = not self.store.is_sync_held()
            flush = self.flushes or is_due
            if is_due:
                self.clear_images()
            number = self.snapshot.id()
            self.images.publish()
            self.snapshot.commit()
        except BaseException as error:
            self.needs_larger_map = isinstance(error, MapFull)
            if self.slot is None:
                self.flush_failed = not self.needs_larger_map
            else:
                # The disk may be full. A flush lets the pages of the commits before be reused.
                self.needs_flush = not self.needs_larger_map
            self.roll_back()
            translated = self.translated(error) if isinstance(error, Exception) else error
            if translated is error:
                raise
            raise translated from error
        self.writer_lock.release()
        self.blocks.pop()
        self.snapshot = None
        # A transaction without changes uses up no id, so another process may use the same id.
        self.expected_id = number + 1 if self.wrote else -1
        self.room -= COMMIT_SIZE + self.written
        # It may be large.
        self.cache.last_yielded.record = None
        self.flushes = False
        if flush:
            self.store.flush()
        elif self.slot is not None and self.wrote:
            self.count_waiting(number)
        return 0

    cdef int count_waiting(self, long long number) except -1:
        """Note that transaction ``number`` was committed and not flushed, and let much that is waiting be flushed."""
        cdef long long flushed = self.slot.txnid(), size
        if flushed != self.waiting_since:
            self.waiting_since = flushed
            self.waiting = 0
        self.waiting += COMMIT_SIZE + self.written
        if not self.waits:
            self.waits = True
            self.store.begin_waiting()
        size = max(self.waiting, (number - flushed) * COMMIT_SIZE)
        if size >= FLUSH_SIZE:
            self.store.flush_waiting(size >= FLUSH_LIMIT)
        return 0

    cdef int roll_back(self) except -1:
        """Abort the transaction, and end all blocks."""
        open_ones = [*self.parents, self.snapshot]
        try:
            self.cache.revert()
        finally:
            self.images.abandon()
            self.snapshot = None
            self.parents = []
            self.marks = []
            self.blocks = []
            self.needs_larger_map = self.needs_larger_map or isinstance(self.failure, MapFull)
            self.failure = None
            self.flushes = False
            self.expected_id = -1
            try:
                for txn in reversed(open_ones):
                    txn.abort()
            finally:
                self.writer_lock.release()
        return 0

    cdef int end_savepoint(self, bint failed) except -1:
        child = self.snapshot
        try:
            if not failed:
                while self.cache.has_changes():
                    self.cache.sync(False)
                child.commit()
        except BaseException as error:
            self.failure = error
            raise
        finally:
            if failed:
                self.cache.revert()
                # Make the cache read again, because it may have read changes that are rolled back.
                self.disk_version += 1
                self.images.roll_back(self.marks[len(self.marks) - 1])
                child.abort()
            self.marks.pop()
            self.snapshot = self.parents.pop()
            self.blocks.pop()
        return 0

    # Saving

    def sync(self):
        """Make the current state the restore point of ``revert()``, and flush it with the commit."""
        self.cache.sync(False)
        if self.images.count():
            self.clear_images()
        self.flushes = True

    cdef int clear_images(self) except -1:
        self.images.clear()
        return self.use_number()

    cdef int use_number(self) except -1:
        """Change something, because LMDB gives the number of a transaction without changes to the next one.

        What was recorded in the undo log under this number would then not count.
        """
        self.snapshot.put(LAST_SYNC, pack(self.snapshot.id()), True, True, False, self.meta)
        self.wrote = True
        return 0

    def sync_key(self, bytes key not None):
        """Make the current state of one encoded key its restore point, and flush it with the commit.

        Returns whether the key exists, or existed at the last sync.
        """
        self.cache.sync(False)
        found = self.undo_log.forget_key(key)
        self.use_number()
        self.written_directly()
        self.flushes = True
        return found

    def revert(self):
        """Restore the state of the last sync."""
        self.cache.sync(False)
        self.undo_log.restore()
        self.written_directly()

    def postpone_sync(self):
        """Prevent the automatic sync at the commit of this transaction."""
        self.sync_at = maxsize

    # One operation

    def perform(self, int kind, function, *arguments, **keywords):
        """Call a function in its own block. If the map is full, grow it and call again, unless inside another block."""
        cdef long long epoch
        while True:
            try:
                if kind == OPERATION and self.is_inside():
                    return function(*arguments, **keywords)
                self.begin_block(kind)
                epoch = self.epoch
                self.repeats = self.repeats or len(self.blocks) == 1
                try:
                    result = function(*arguments, **keywords)
                except BaseException as error:
                    self.end_block_if(epoch, True)
                    self.raise_translated(error)
                    raise
                self.end_block_if(epoch, False)
                return result
            except MapFull as error:
                self.retry_with_larger_map(error)

    cdef bint is_inside(self):
        """Return whether this thread is inside a block. Raises if the transaction cannot be committed any more."""
        if self.lock.depth and self.lock.is_mine() and self.blocks:
            if self.failure is not None:
                raise self.store.aborted_earlier(self.failure)
            return True
        return False

    cdef bint is_single(self):
        """Return whether the transaction consists of one operation."""
        return len(self.blocks) == 1 and self.blocks[0] == OPERATION

    cdef int retry_with_larger_map(self, object error) except -1:
        """Mark the map to be grown before the next transaction. The caller runs its operation again.

        Raises inside a block, because the earlier operations of the block cannot be run again. If the block is one call
        of perform(), the error is for perform(), which runs all of them again.
        """
        if self.blocks and self.lock.is_mine():
            if self.repeats:
                raise error
            raise self.store.aborted_earlier(error) from error
        self.needs_larger_map = True
        return 0


@cython.final
cdef class TransactionContext:
    """Run a ``with`` body as a block: ``with store.locked():`` (BLOCK), ``with store.transaction():`` (SAVEPOINT).

    A context may be entered more than once, also while it is open.
    """

    cdef WriteTransaction transaction
    cdef object store
    cdef int kind
    # A pair for each entry that has not ended: the epoch, and the number of open blocks.
    cdef list entered

    def __init__(self, WriteTransaction transaction not None, int kind, store):
        self.transaction = transaction
        self.kind = kind
        self.store = store
        self.entered = []

    def __enter__(self):
        self.transaction.begin_block(self.kind)
        self.entered.append((self.transaction.epoch, len(self.transaction.blocks)))
        return self.store

    def __exit__(self, kind, error, traceback):
        cdef WriteTransaction transaction = self.transaction
        cdef bint is_inner
        if not self.entered:
            raise NotLockedError("a block was ended that was not begun; use it in a with statement")
        epoch, depth = self.entered[len(self.entered) - 1]
        if epoch == transaction.epoch and not transaction.lock.is_mine():
            # Keep the entry, because the thread that holds the lock can still end the block.
            raise NotLockedError("a block must be ended by the thread that began it; another thread tried to, perhaps "
                                 "because a generator was closed or collected there")
        self.entered.pop()
        # In another epoch the block has already ended, because close() ended it or this is a forked child, which does
        # not inherit the block.
        if epoch == transaction.epoch:
            is_inner = depth == len(transaction.blocks)
            if not is_inner:
                transaction.poison()
                failure = transaction.failure
            transaction.end_user_block(error is not None)
            if not is_inner and error is None:
                raise transaction.store.aborted_earlier(failure)
