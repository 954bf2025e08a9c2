"""The write transaction of a shared store: an operation, or a block of them, that others see whole or not at all.

LMDB's write transaction is the lock between processes, and ``lock`` the one between the threads of this one,
taken first. Inside of it a cache of its own collects the changes, as that of a private store does between two
syncs, reads through the transaction, and syncs into it before the commit. It is compiled because no signal
handler may raise between taking a lock and noting that it is taken.
"""

cimport cython
from cpython.ref cimport Py_INCREF

from tastypy_fast._core.write_cache cimport WriteCache
from tastypy_fast._core.store_base cimport Lock, StoreBase

from os import sysconf

from tastypy_fast._lmdb.engine import MapFull
from tastypy_fast.exceptions import CalledClosedTrackerError, NotLockedError, StorageError

cdef enum:
    # A block of operations begins with that much room in the map; where the map is small, with an eighth of it, but
    # with what a few operations take in any case.
    ROOM = 1 << 30
    LEAST_ROOM = 1 << 18

cdef long long PAGE = sysconf("SC_PAGE_SIZE")

__all__ = ["SAVEPOINT", "BLOCK", "MANUAL", "OPERATION", "WriteTransaction"]


@cython.final
cdef class WriteTransaction(StoreBase):
    """The write transaction of one store in this process; ``snapshot`` is LMDB's, while it is open.

    Three kinds of scope can be entered, inside of one another. OPERATION is one operation: when it raises, nothing
    of it is kept if it is the outermost. BLOCK is several, which are kept also when one raises. SAVEPOINT is several
    of which nothing is kept when one raises, wherever it stands (a nested transaction of LMDB's). MANUAL is a
    BLOCK without a ``with``. ``incarnation`` changes where all that is open ends at once, and in a forked child:
    what was entered before is not left then.
    """

    def __init__(self, str path not None, bint gzipped, store not None):
        self.store = store
        self.path = path
        self.gzipped = gzipped
        self.writable = True
        self.forget()

    def forget(self):
        """Be as new, without an open transaction: opened, or in a forked child."""
        self.lock = Lock()
        self.snapshot = None
        self.scopes = []
        self.parents = []
        self.failure = None
        self.flushes = False
        self.expected = -1
        self.is_unknown = True
        self.epoch += 1
        self.writer_lock = None
        if self.cache is not None:
            self.cache.forget()

    def leave_to_parent(self, db):
        """In a forked child: leave LMDB's environment ``db``, and the open transaction of a thread that has ended, as
        they are. To close or abort them would wait for that thread's lock for ever, so they are never freed."""
        for item in (db, self.snapshot, *self.parents):
            Py_INCREF(item)

    def attach(self, WriteCache cache not None):
        """Work through this cache."""
        cache.copies = True
        self.cache = cache

    # What a cache asks of its store

    def begin_reading(self):
        raise RuntimeError("the cache of a transaction was used outside of it")

    def count(self):
        return self.snapshot.stat(self.values)["entries"]

    def next_number(self, txn):
        return self.store.next_number(txn)

    def first_free(self):
        """The order number that comes next."""
        return self.next_free()

    def has_large_values(self):
        # To read a key without its value takes a transaction of another kind.
        return False

    def write(self, work):
        """Have ``work`` done in the open transaction."""
        try:
            return work(self.snapshot)
        except Exception as error:
            # The engine goes on with nothing after an error.
            self.failure = error
            raise self.translated(error) from error

    def write_sync(self, work, scattered, size):
        """The same: there is no log."""
        return self.write(work)

    def flush(self):
        """Nothing is there to be flushed before the commit."""

    def follow_files(self):
        self.store.check_files()

    cdef int raise_translated(self, object error) except -1:
        """Raise the engine's error as one of ours; nothing where it is another."""
        if isinstance(error, Exception):
            translated = self.translated(error)
            if translated is not error:
                raise translated from error
        return 0

    def translated(self, error):
        return self.store.translated(error)

    def damaged(self, reason):
        return self.store.damaged(reason)

    # Scopes

    cpdef int begin_block(self, int kind) except -1:
        """Begin a scope: wait for the other threads, then for the other processes."""
        self.lock.acquire()
        try:
            if not self.scopes:
                self.begin(kind)
            elif kind == MANUAL and self.scopes[len(self.scopes) - 1] == OPERATION:
                # Its unlock() could not tell the two apart.
                raise NotLockedError("lock() in the middle of another operation of the same store; call it on its own")
            elif self.failure is not None:
                raise self.store.aborted_earlier(self.failure)
            elif kind == SAVEPOINT:
                self.cache.sync(False)
                child = self.db.begin(None, self.snapshot, True)
                self.parents.append(self.snapshot)
                self.snapshot = child
            self.scopes.append(kind)
        except BaseException:
            if not self.scopes and self.snapshot is not None:
                self.drop()
            self.lock.release()
            raise
        return 0

    # A signal handler runs between any two lines of Python and may use the store, too. So Python is called only while
    # no transaction is open, where the handler has one of its own, or while its scope is, of which it becomes a part.

    cpdef int end_block(self, bint failed) except -1:
        """End the innermost scope: keep what was done in it, or, where it ``failed``, what its kind says."""
        cdef int kind = self.scopes[len(self.scopes) - 1]
        try:
            if len(self.scopes) == 1:
                self.end_outermost(failed, failed and kind != BLOCK and kind != MANUAL)
            elif kind == SAVEPOINT:
                self.end_savepoint(failed or self.failure is not None)
            else:
                self.scopes.pop()
        finally:
            self.lock.release()
        return 0

    cdef int end_outermost(self, bint failed, bint undone) except -1:
        failure = self.failure
        if failure is None and not undone:
            return self.commit()
        self.drop()
        if failure is not None and not failed:
            raise self.store.aborted_earlier(failure)
        return 0

    cpdef int end_all_blocks(self) except -1:
        """Keep what was done in all open scopes, and end them."""
        if self.scopes and self.lock.is_mine():
            self.epoch += 1
            while self.scopes:
                self.end_user_block(False)
        return 0

    def unlock(self):
        """End a block that was begun explicitly."""
        if not self.lock.is_mine() or MANUAL not in self.scopes:
            raise NotLockedError("unlock() without lock(): this thread does not hold the store's lock")
        if self.scopes[len(self.scopes) - 1] != MANUAL:
            raise NotLockedError("unlock() inside of a block that was begun after lock(): end that one first")
        self.end_user_block(False)

    cdef int end_user_block(self, bint failed) except -1:
        """leave(), in words for the user where the map is too small for the block."""
        try:
            self.end_block(failed)
        except MapFull as error:
            raise self.store.aborted_earlier(error) from error
        return 0

    cdef int poison(self) except -1:
        """Keep nothing: a block ends before one that was begun inside of it, and which part is whose cannot be told."""
        if self.failure is None:
            self.failure = NotLockedError("a block ended before one that had begun inside of it, as coroutines and "
                                          "generators may do; no await and no yield belongs into a block")
        return 0

    cdef int end_block_if(self, long long epoch, bint failed) except -1:
        """leave(), if what was entered then is still open."""
        if epoch == self.epoch:
            self.end_block(failed)
        return 0

    def written_directly(self):
        """Something was written past the cache, which has nothing that is not in the transaction, too."""
        self.cache.revert()
        self.disk_version += 1
        self.is_unknown = True
        self.wrote = True

    cdef int begin(self, int kind) except -1:
        cdef long long number
        if self.closed:
            raise CalledClosedTrackerError("this store was closed; open it again to use it")
        if self.is_too_small:
            self.store.grow()
            self.is_too_small = False
        self.look_at_files()
        self.begin_writing()
        if kind != OPERATION:
            self.make_room()
        number = self.snapshot.id()
        if number != self.expected:
            # Another process has written since.
            self.disk_version += 1
            self.next_is_old = True
            self.is_unsure = True
        self.wrote = False
        return 0

    cdef int begin_writing(self) except -1:
        if self.writer_lock is None:
            self.writer_lock = self.store.open_writer_lock()
        self.writer_lock.acquire()
        try:
            while True:
                try:
                    self.snapshot = self.db.begin(None, None, True)
                    return 0
                except Exception as error:
                    self.store.prepare_writing(error)
        except BaseException:
            self.writer_lock.release()
            raise

    cdef int make_room(self) except -1:
        """Have room for a block, which cannot be done again where the map turns out to be full. It is looked for inside
        of the transaction: the others wrote until it began."""
        cdef dict facts
        cdef long long size
        while True:
            facts = self.db.info()
            size = facts["map_size"]
            if size - (<long long>facts["last_pgno"] + 1) * PAGE >= min(ROOM, max(LEAST_ROOM, size // 8)):
                return 0
            snapshot, self.snapshot = self.snapshot, None
            snapshot.abort()
            self.writer_lock.release()
            try:
                self.store.grow()
                refused = False
            except StorageError:
                # It may be enough all the same.
                refused = True
            self.begin_writing()
            if refused:
                return 0

    cdef int commit(self) except -1:
        cdef long long number
        cdef bint flush
        try:
            while self.cache.has_changes():
                self.cache.sync(False)
            if self.failure is not None:
                raise self.store.aborted_earlier(self.failure)
            flush = self.flushes
            if self.wrote and self.is_sync_due():
                self.drop_images()
                flush = True
            number = self.snapshot.id()
            self.snapshot.commit()
        except BaseException as error:
            self.is_too_small = isinstance(error, MapFull)
            self.drop()
            translated = self.translated(error) if isinstance(error, Exception) else error
            if translated is error:
                raise
            raise translated from error
        self.writer_lock.release()
        self.scopes.pop()
        self.snapshot = None
        # (what wrote nothing took no number, and somebody else may take this one)
        self.expected = number + 1 if self.wrote else -1
        self.flushes = False
        if flush:
            self.store.flush()
        return 0

    cpdef int drop_images(self) except -1:
        """What is there now is what a revert() comes back to."""
        self.snapshot.drop(self.images, False)
        self.before_image_count = self.images_counted = 0
        return 0

    cdef bint is_sync_due(self) except -1:
        """Whether as many keys differ from the last sync as make the next one."""
        if self.is_unknown or (self.is_unsure and (
                self.before_image_count >= self.sync_at
                or self.before_image_count - self.images_counted >= max(1, self.sync_at >> 4))):
            # Where others write too, all are counted only now and then: it is a third of a small transaction.
            self.before_image_count = self.images_counted = self.snapshot.stat(self.images)["entries"]
            self.is_unsure = self.is_unknown = False
        if self.before_image_count < self.sync_at:
            return False
        held = self.snapshot.get(b"held", None, self.meta)
        return held is None or not self.store.hold.lasts(held)

    cdef int drop(self) except -1:
        """End the transaction as if it had not been, and its scope if that was entered."""
        open_ones = [*self.parents, self.snapshot]
        try:
            self.cache.revert()
        finally:
            self.snapshot = None
            self.parents = []
            self.scopes = []
            self.is_too_small = self.is_too_small or isinstance(self.failure, MapFull)
            self.failure = None
            self.flushes = False
            self.expected = -1
            self.is_unknown = True
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
                # (what the cache knows of the disk may be of the part that is undone)
                self.disk_version += 1
                self.is_unknown = True
                child.abort()
            self.snapshot = self.parents.pop()
            self.scopes.pop()
        return 0

    # One operation

    def perform(self, int kind, function, *arguments, **keywords):
        """Call a function in a scope. Where the map is full it grows and all is done again, but in a block."""
        cdef long long epoch
        while True:
            try:
                if kind == OPERATION and self.is_inside():
                    return function(*arguments, **keywords)
                self.begin_block(kind)
                epoch = self.epoch
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
        """Whether this thread is in a block, and may go on in it."""
        if self.lock.depth and self.lock.is_mine() and self.scopes:
            if self.failure is not None:
                raise self.store.aborted_earlier(self.failure)
            return True
        return False

    cdef bint is_single(self):
        """Whether one operation is all that the transaction does."""
        return len(self.scopes) == 1 and self.scopes[0] == OPERATION

    cdef int retry_with_larger_map(self, object error) except -1:
        """The map was full, and grows before the next transaction: all is to be done again, but not in a block."""
        if self.scopes and self.lock.is_mine():
            raise self.store.aborted_earlier(error) from error
        self.is_too_small = True
        return 0
