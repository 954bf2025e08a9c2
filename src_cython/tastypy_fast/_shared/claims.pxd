from tastypy_fast._core.claim_record cimport Claim
from tastypy_fast._core.locks cimport Lock
from tastypy_fast._core.task_cache cimport TaskCache

cdef enum:
    # In the result of claim_keys(): another worker or iterator has claimed the task.
    BLOCKED = -2

cdef list claim_next(TaskCache tasks, long long after, long long limit, bint allow_aborted, long long max_tries,
                     list own, object is_free, Claim* claim, int step, list entries)
cdef int claim_keys(TaskCache tasks, list keys, list found, bint allow_aborted, long long max_tries, object is_free,
                    Claim* claim) except -1
cdef list still_claimed(TaskCache tasks, list claimed, Claim* claim)
cdef object read_task(TaskCache tasks, long long seq, int kind, Claim* claim)
cdef bint is_still_claimed(TaskCache tasks, long long seq, Claim* claim, long long since) except -1
cdef list keys_at(TaskCache tasks, list seqs)
cdef int close_from_finalizer(Lock lock, object close) except -1
