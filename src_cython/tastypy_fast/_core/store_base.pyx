"""Define the interface between a store and its caches: fields, database handles and methods of each kind of store.

A cache reads and writes through a StoreBase and does not know which kind it has. The kinds are:

    Store              a private store, opened to write or to read
    ReadOnlyStore      any store, opened for inspection
    SharedStore        a shared store, for reads outside a transaction
    WriteTransaction   the open write transaction of a shared store

Fields that only some of them have are None elsewhere:

    field          Store                    ReadOnlyStore        SharedStore   WriteTransaction
    db             while open               while open           while open    when opened to write
    snapshot       while reading            while reading        while reading LMDB's write transaction, while open
    status         None in a plain dict     (the same in all)
    wal            set                      set if there is one  None          None
    images         None                     None                 set           set
    claims         None                     set                  set           set
    summary        while known              None                 None          None
    worker_slots   None                     None                 None          while this process is a worker

``images is None`` therefore means that the store is private and keeps no before-images.
"""

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

__all__ = ["StoreBase"]


cdef class StoreBase:
    """One open store, or one open write transaction of a shared store.

    ``snapshot_per_op`` means that another process may write, so each operation reads its own snapshot. ``disk_version``
    increases when a write transaction begins. A cache that remembers an older version reads the disk again.
    ``next_seq`` is the next sequence number. ``wrote`` belongs to a write transaction: whether it has changes to
    commit. ``worker_number`` is valid while ``worker_slots`` is set.
    """

    def __cinit__(self):
        self.lock = Lock()
        self.waiting_tries = {}

    # Methods that each kind of store implements. The caller holds the lock.

    def begin_reading(self, bint buffers=False):
        """Begin a read transaction on the last commit. With ``buffers`` it returns views of the map, not copies."""
        raise NotImplementedError

    def end_reading(self):
        """End the current snapshots. The next read begins a new one."""
        raise NotImplementedError

    def reader_of_buffers(self):
        """Return the snapshot that returns views of the map instead of copies."""
        raise NotImplementedError

    def count(self):
        """Return how many records are on disk."""
        raise NotImplementedError

    def has_large_values(self):
        """Return whether reading a key without its value is cheaper, because values have pages of their own."""
        raise NotImplementedError

    def next_number(self, txn):
        """Return the sequence number after the largest one that a transaction sees."""
        raise NotImplementedError

    def write(self, work):
        """Call ``work`` with a write transaction, commit it, and return the result.

        The store may call ``work`` again after the map was full, so it must not change anything else.
        """
        raise NotImplementedError

    def write_sync(self, work, long long scattered, long long size):
        """Call ``work`` to write the changes of a sync, into the databases or only into the write-ahead log.

        ``scattered`` is the number of places in the databases that it changes, ``size`` the bytes that it writes.
        """
        raise NotImplementedError

    def flush(self):
        """Wait until every commit is on the disk."""
        raise NotImplementedError

    def follow_files(self):
        """Check that the files at the path are those that are open, and open or refuse new ones."""
        raise NotImplementedError

    def stop_slot_of(self, unsigned long long worker, unsigned long long slot, unsigned long long position):
        """Stop another worker from yielding a task that it claimed. Returns False if the task was yielded already."""
        raise NotImplementedError

    def open_running_tasks(self):
        """Create the file of the running tasks, and set ``running_tasks``. Only private stores call this."""
        raise NotImplementedError

    def refuse_write(self):
        """Return the error for a write to a read-only store."""
        raise NotImplementedError

    def reraise(self, error):
        """Raise what ``translated()`` returns. No error becomes its own cause, which others cannot pickle."""
        translated = self.translated(error)
        if translated is error:
            raise error
        raise translated from error

    def translated(self, error):
        """Return the exception of this package for an error of LMDB, or any other error as it is."""
        raise NotImplementedError

    def damaged(self, reason):
        """Return the error for damaged files."""
        raise NotImplementedError

    # Methods of all kinds

    cdef object reader(self):
        """Return the current snapshot, and begin one if there is none.

        The caller holds the lock, and uses the snapshot only while it holds the lock.
        """
        if self.snapshot is None:
            if self.snapshot_per_op and self.db is not None:
                try:
                    txn = self.db.begin()
                    self.snapshot = txn if self.wal is None else self.wal.merged_view(txn)
                    return self.snapshot
                except Exception:
                    # Another process has grown the map or has the last reader slot, or the log is damaged.
                    # begin_reading() handles each of these.
                    pass
            self.snapshot = self.begin_reading()
        return self.snapshot

    cdef int recheck_files(self) except -1:
        """Call ``follow_files()``, at most once a second."""
        cdef timespec now
        clock_gettime(CLOCK_MONOTONIC, &now)
        if now.tv_sec != self.files_checked:
            self.follow_files()
            self.files_checked = now.tv_sec
        return 0

    cdef int end_snapshot(self) except -1:
        """End the current snapshot. This is faster than ``end_reading()`` if there is no snapshot of buffers."""
        if self.buffer_snapshot is not None:
            self.end_reading()
        elif self.snapshot is not None:
            # The field is cleared first, because an interrupt may come at any line and an ended transaction must not be
            # used again.
            txn = self.snapshot
            self.snapshot = None
            txn.abort()
        return 0

    cdef long long next_free(self) except -1:
        """Return the next sequence number.

        It never decreases, because an iterator may have yielded rows that a revert has deleted since.
        """
        cdef long long number
        if self.is_next_seq_stale:
            number = self.next_number(self.snapshot)
            self.next_seq = max(self.next_seq, number)
            self.is_next_seq_stale = False
        return self.next_seq

    cdef long long allocate(self) except -1:
        """Return a sequence number that was never used. The interpreter lock makes this atomic."""
        cdef long long number = self.next_free()
        self.next_seq += 1
        return number
