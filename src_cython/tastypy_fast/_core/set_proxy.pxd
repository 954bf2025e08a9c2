cdef class Operation:
    cdef readonly tuple steps
    cdef object act
    cdef readonly tuple arguments

    cdef object act_on(self, object target, Py_ssize_t first)
    cdef bint leads_into_a_value(self)
    cdef bint augments_a_key(self)
    cdef bint is_for_a_key(self)

cdef class SetProxy:
    cdef object apply
    # The place one step before, or None at the root, and the step from there.
    cdef SetProxy parent
    cdef bint is_item
    cdef object name
    cdef bint is_done

    cdef SetProxy at(self, bint is_item, object name)
    cdef tuple steps(self)
    cdef object do(self, tuple steps, object act, tuple arguments)
    cdef SetProxy augment(self, object change, object operand)

cdef SetProxy make_proxy(object apply)
cpdef bint is_done(object value, tuple steps)
