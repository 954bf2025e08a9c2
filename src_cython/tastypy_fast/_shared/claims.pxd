from tastypy_fast._core.claim_record cimport Claim
from tastypy_fast._core.tracker_cache cimport TrackerCache

cdef list claim_next(TrackerCache tasks, long long after, long long limit, bint allow_aborted, long long max_tries,
                     list own, object is_free, Claim* claim)
cdef object read_task(TrackerCache tasks, long long seq, int kind, Claim* claim)
cdef bint is_still_claimed(TrackerCache tasks, long long seq, Claim* claim, long long since) except -1
cdef list keys_at(TrackerCache tasks, list seqs)
