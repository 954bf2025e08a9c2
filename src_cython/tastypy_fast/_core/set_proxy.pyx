"""Record a path into a value and one operation at its end, and apply both as a whole: the proxy behind ``.set``.

``pod.set["a"]["b"].append(1)`` becomes one call ``apply(operation)``. The operation can perform itself on any root with
keys. The proxy knows nothing else about the store, so the store decides what it reads, locks and writes around the
operation. A shared store performs it in one write transaction, which makes ``shared.set[...] += 1`` atomic.

A step of a path is a pair: whether it leads to an item or an attribute, and the key or name.
"""

cimport cython

import operator
from collections.abc import Iterator

cdef extern from "Python.h":
    object PyObject_GenericGetAttr(object owner, object name)

__all__ = ["SetProxy", "Operation", "is_done"]


@cython.final
@cython.freelist(8)
cdef class Operation:
    """One operation at the end of a path: ``act(target, *arguments)``.

    Without ``act``, the target is called. The arguments are then the tuple and the dict of the call.
    """

    def perform(self, root):
        """Perform the operation on ``root``, and return its result."""
        return self.act_on(root, 0)

    cdef object act_on(self, object target, Py_ssize_t first):
        """Perform the operation on ``target``, the result of the steps before ``first``."""
        cdef Py_ssize_t at
        for at in range(first, len(self.steps)):
            target = follow(self.steps[at], target)
        if self.act is None:
            if not <dict>self.arguments[1]:
                return target(*<tuple>self.arguments[0])
            return target(*<tuple>self.arguments[0], **<dict>self.arguments[1])
        return self.act(target, *self.arguments)

    cdef bint leads_into_a_value(self):
        return len(self.steps) > 0 and <bint>self.steps[0][0]

    cdef bint augments_a_key(self):
        """Return whether this is ``root[key] change= operand``. The arguments are the step, the change, the operand."""
        return not self.steps and self.act is augment and <bint>self.arguments[0][0]

    cdef bint is_for_a_key(self):
        return not self.steps and (self.act is augment or self.act is operator.setitem or self.act is operator.delitem)

    def without_iterators(self):
        """Return the operation with its iterators read into lists.

        The result can be performed again, and runs no generator of the caller inside a transaction.
        """
        if self.act is operator.setitem and not isinstance(self.arguments[0], slice):
            return self
        if not has_iterator(self.arguments):
            return self
        return make_operation(self.steps, self.act, read(self.arguments))


cdef Operation make_operation(tuple steps, object act, tuple arguments):
    cdef Operation operation = Operation.__new__(Operation)
    operation.steps = steps
    operation.act = act
    operation.arguments = arguments
    return operation


cdef object follow(tuple step, object target):
    """Return the item or the attribute of ``target`` to which a step leads."""
    return target[step[1]] if step[0] else getattr(target, step[1])


cdef bint has_iterator(object value) except -1:
    """Return whether the arguments of an operation contain an iterator."""
    if type(value) is tuple:
        for item in <tuple>value:
            if has_iterator(item):
                return True
        return False
    if type(value) is dict:
        return any([has_iterator(item) for item in (<dict>value).values()])
    return type(value) not in PLAIN and isinstance(value, Iterator)


# Types that are no iterators. They are checked first, because isinstance() with an abstract class is slow.
cdef set PLAIN = {int, str, float, bool, list, type(None), bytes, slice, type(operator.iadd)}


cdef object read(object value):
    """Return the arguments of an operation with iterators read into lists."""
    if type(value) is tuple:
        return tuple([read(item) for item in <tuple>value])
    if type(value) is dict:
        return {name: read(item) for name, item in (<dict>value).items()}
    return list(value) if type(value) not in PLAIN and isinstance(value, Iterator) else value


def augment(target, step, change, operand):
    """Perform ``target[name] change= operand``."""
    result = change(follow(step, target), operand)
    if step[0]:
        target[step[1]] = result
    else:
        setattr(target, step[1], result)


# A place keeps the one before it, so the end of a long path would overflow the stack of the processor without trashcan.
@cython.final
@cython.freelist(8)
@cython.trashcan(True)
cdef class SetProxy:
    """A place inside a stored value, through which the value is changed.

    Keys, indexes and slices lead further into the value. A method call, an assignment, ``del`` and an augmented
    assignment change it, and the change is saved. A place is not the stored value: every use as a value raises
    TypeError. The exceptions are ``repr()``, and ``is``, which a class cannot define.
    """

    def __init__(self, apply):
        self.apply = apply

    cdef SetProxy at(self, bint is_item, object name):
        """Return the place one step further."""
        cdef SetProxy proxy = make_proxy(self.apply)
        proxy.parent = self
        proxy.is_item = is_item
        proxy.name = name
        return proxy

    cdef tuple steps(self):
        """Return the steps from the root. Only an operation needs them, so most places make none."""
        cdef SetProxy place = self
        cdef list steps
        if self.parent is None:
            return ()
        if self.parent.parent is None:
            return ((self.is_item, self.name),)
        if self.parent.parent.parent is None:
            return (self.parent.is_item, self.parent.name), (self.is_item, self.name)
        steps = []
        while place.parent is not None:
            steps.append((place.is_item, place.name))
            place = place.parent
        steps.reverse()
        return tuple(steps)

    cdef object do(self, tuple steps, object act, tuple arguments):
        return self.apply(make_operation(steps, act, arguments))

    cdef SetProxy augment(self, object change, object operand):
        cdef SetProxy proxy = make_proxy(self.apply)
        proxy.parent = self.parent
        proxy.is_item = self.is_item
        proxy.name = self.name
        if self.parent is not None:
            self.do(self.parent.steps(), augment, ((self.is_item, self.name), change, operand))
        else:
            self.do((), change, (operand,))
        # Python assigns the result to the same place. __setitem__ and the setter of .set recognize it by is_done.
        proxy.is_done = True
        return proxy

    def __getitem__(self, key):
        return self.at(True, key)

    def __getattribute__(self, str name):
        # Do not search the class for a step, because each search would make and drop an AttributeError.
        if len(name) > 1 and name[0] == "_" and name[1] == "_":
            return PyObject_GenericGetAttr(self, name)
        return self.at(False, name)

    def __getattr__(self, str name):
        """Refuse a special method that the class does not have."""
        raise AttributeError(name)

    def __call__(self, *arguments, **keywords):
        return self.do(self.steps(), None, (arguments, keywords))

    def __setitem__(self, key, value):
        if type(value) is not SetProxy or not is_done(value, (*self.steps(), (True, key))):
            self.do(self.steps(), operator.setitem, (key, value))

    def __delitem__(self, key):
        self.do(self.steps(), operator.delitem, (key,))

    def __repr__(self):
        where = "".join([f"[{name!r}]" if is_item else f".{name}" for is_item, name in self.steps()])
        # The name of this class in tastypy, whose documentation shows it in the repr.
        return f"<DeepProxy .set{where}: changes the stored value; leave off .set to read it>"

    def __iadd__(self, operand):
        return self.augment(operator.iadd, operand)

    def __isub__(self, operand):
        return self.augment(operator.isub, operand)

    def __imul__(self, operand):
        return self.augment(operator.imul, operand)

    def __imatmul__(self, operand):
        return self.augment(operator.imatmul, operand)

    def __itruediv__(self, operand):
        return self.augment(operator.itruediv, operand)

    def __ifloordiv__(self, operand):
        return self.augment(operator.ifloordiv, operand)

    def __imod__(self, operand):
        return self.augment(operator.imod, operand)

    def __ipow__(self, operand):
        return self.augment(operator.ipow, operand)

    def __ilshift__(self, operand):
        return self.augment(operator.ilshift, operand)

    def __irshift__(self, operand):
        return self.augment(operator.irshift, operand)

    def __iand__(self, operand):
        return self.augment(operator.iand, operand)

    def __ixor__(self, operand):
        return self.augment(operator.ixor, operand)

    def __ior__(self, operand):
        return self.augment(operator.ior, operand)

    # Refuse uses of a place as the stored value. Without these methods, Python would accept most of them: a place would
    # be true, equal only to itself, and would iterate over __getitem__ without an end.

    def __bool__(self):
        raise not_a_value(self, "test its truth")

    def __len__(self):
        raise not_a_value(self, "get its length")

    def __iter__(self):
        raise not_a_value(self, "iterate over it")

    def __contains__(self, item):
        raise not_a_value(self, "ask what is in it")

    def __eq__(self, other):
        raise not_a_value(self, "compare it")

    def __ne__(self, other):
        raise not_a_value(self, "compare it")

    def __lt__(self, other):
        raise not_a_value(self, "compare it")

    def __le__(self, other):
        raise not_a_value(self, "compare it")

    def __gt__(self, other):
        raise not_a_value(self, "compare it")

    def __ge__(self, other):
        raise not_a_value(self, "compare it")

    def __hash__(self):
        raise not_a_value(self, "hash it")

    def __str__(self):
        raise not_a_value(self, "get its text")

    def __format__(self, specification):
        raise not_a_value(self, "format it")

    def __bytes__(self):
        raise not_a_value(self, "get its bytes")

    def __int__(self):
        raise not_a_value(self, "convert it")

    def __float__(self):
        raise not_a_value(self, "convert it")

    def __complex__(self):
        raise not_a_value(self, "convert it")

    def __index__(self):
        raise not_a_value(self, "use it as an index")

    def __round__(self, digits=None):
        raise not_a_value(self, "round it")

    def __reduce__(self):
        raise not_a_value(self, "copy or pickle it")

    def __neg__(self):
        raise not_a_value(self, "calculate with it")

    def __pos__(self):
        raise not_a_value(self, "calculate with it")

    def __abs__(self):
        raise not_a_value(self, "calculate with it")

    def __invert__(self):
        raise not_a_value(self, "calculate with it")

    def __add__(self, other):
        raise not_a_value(self, "calculate with it")

    def __radd__(self, other):
        raise not_a_value(self, "calculate with it")

    def __sub__(self, other):
        raise not_a_value(self, "calculate with it")

    def __rsub__(self, other):
        raise not_a_value(self, "calculate with it")

    def __mul__(self, other):
        raise not_a_value(self, "calculate with it")

    def __rmul__(self, other):
        raise not_a_value(self, "calculate with it")

    def __matmul__(self, other):
        raise not_a_value(self, "calculate with it")

    def __rmatmul__(self, other):
        raise not_a_value(self, "calculate with it")

    def __truediv__(self, other):
        raise not_a_value(self, "calculate with it")

    def __rtruediv__(self, other):
        raise not_a_value(self, "calculate with it")

    def __floordiv__(self, other):
        raise not_a_value(self, "calculate with it")

    def __rfloordiv__(self, other):
        raise not_a_value(self, "calculate with it")

    def __mod__(self, other):
        raise not_a_value(self, "calculate with it")

    def __rmod__(self, other):
        raise not_a_value(self, "calculate with it")

    def __divmod__(self, other):
        raise not_a_value(self, "calculate with it")

    def __rdivmod__(self, other):
        raise not_a_value(self, "calculate with it")

    def __lshift__(self, other):
        raise not_a_value(self, "calculate with it")

    def __rlshift__(self, other):
        raise not_a_value(self, "calculate with it")

    def __rshift__(self, other):
        raise not_a_value(self, "calculate with it")

    def __rrshift__(self, other):
        raise not_a_value(self, "calculate with it")

    def __and__(self, other):
        raise not_a_value(self, "calculate with it")

    def __rand__(self, other):
        raise not_a_value(self, "calculate with it")

    def __xor__(self, other):
        raise not_a_value(self, "calculate with it")

    def __rxor__(self, other):
        raise not_a_value(self, "calculate with it")

    def __or__(self, other):
        raise not_a_value(self, "calculate with it")

    def __ror__(self, other):
        raise not_a_value(self, "calculate with it")

    def __pow__(self, other, modulus):
        raise not_a_value(self, "calculate with it")

    def __rpow__(self, other, modulus):
        raise not_a_value(self, "calculate with it")


cdef SetProxy make_proxy(object apply):
    """Return the proxy of the root. ``apply`` is called with each Operation."""
    cdef SetProxy proxy = SetProxy.__new__(SetProxy)
    proxy.apply = apply
    return proxy


cdef object not_a_value(SetProxy proxy, str what):
    """Return the error for using a place as the stored value."""
    return TypeError(f".set changes a stored value and does not read it; leave off .set to {what} ({proxy!r})")


cpdef bint is_done(object value, tuple steps):
    """Return whether a value is the result of an augmented assignment at this place, which Python assigns to it."""
    return type(value) is SetProxy and (<SetProxy>value).is_done and (<SetProxy>value).steps() == steps
