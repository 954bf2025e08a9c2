from tastypy_fast._core.before_images cimport BeforeImages
from tastypy_fast._core.locks cimport Lock
from tastypy_fast._core.running_tasks cimport RunningTasks
from tastypy_fast._core.wal cimport WriteAheadLog
from tastypy_fast._core.worker_slots cimport WorkerSlots

cdef class StoreBase:
    cdef public Lock lock
    cdef public str path
    cdef public bint writable
    cdef public bint snapshot_per_op
    cdef public bint gzipped
    cdef public bint flushes_each_sync
    cdef public long long disk_version
    cdef public long long next_seq
    cdef public object db
    cdef public object snapshot
    cdef public object buffer_snapshot
    # LMDB's handles of the databases.
    cdef public object values
    cdef public object order
    cdef public object status
    cdef public object meta
    # The main database, which has the claims; None where the store has none.
    cdef public object claims
    cdef public BeforeImages images
    cdef public WriteAheadLog wal
    cdef public unsigned long long worker_number
    cdef public WorkerSlots worker_slots
    # A StatusSummary, or None while the summary is not known.
    cdef public object summary
    cdef public bint wrote
    cdef bint is_next_seq_stale
    # The second of the monotonic clock in which the files were checked last.
    cdef public long long files_checked
    # The tasks that this process is running; None before the first try, and where tries are claims.
    cdef public RunningTasks running_tasks
    # The tries of tasks that a killed process has tried and never synced, by their keys in the index.
    cdef public dict waiting_tries
    # A function that wakes the background thread, because it has something to do at another time now.
    cdef public object wake_background

    cdef int recheck_files(self) except -1
    cdef object reader(self)
    cdef int end_snapshot(self) except -1
    cdef long long next_free(self) except -1
    cdef long long allocate(self) except -1
