cdef class DeletedRuns:
    # The first and the last key of each run, in order. The runs are disjoint.
    cdef list firsts
    cdef list lasts

    cdef long long first_of(self, long long key) except? -1
    cdef long long last_of(self, long long key) except? -1
    cdef int add(self, long long first, long long last) except -1
    cdef int remove(self, long long key) except -1

cdef class DeletedStretch:
    cdef DeletedRuns runs
    cdef bint backwards
    # The first and the last deleted record that the walk met since the last record that exists, and their number.
    cdef long long begin
    cdef long long end
    cdef Py_ssize_t count

    cdef long long skip(self, long long key) except? -1
    cdef int stop(self) except -1
