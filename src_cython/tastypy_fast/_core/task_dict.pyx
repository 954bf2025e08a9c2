"""The dict of a task: its status in three special keys, and its data in all others."""

from libc.stdint cimport uint32_t

from tastypy_fast._core.key_codec cimport describe
from tastypy_fast._core.record_codec cimport NO_PAYLOAD, dump_value
from tastypy_fast._core.status_block cimport ABORTED, DONE, MAX_TRIES, PRESENT, make_entry, tries_of

from tastypy_fast.exceptions import UnstorableValueError

__all__ = []


cdef uint32_t status_in(dict value) except? 0xffffffff:
    """The status that the special keys of a task's dict say; a missing one is False or 0."""
    cdef uint32_t flags = PRESENT
    cdef object tries = value.get("_tries", 0)
    for name, flag in (("_done", DONE), ("_aborted", ABORTED)):
        is_set = value.get(name, False)
        if is_set is not False and is_set is not True:
            if type(is_set) is not int or is_set not in (0, 1):
                raise UnstorableValueError(f"a task's {name!r} must be True or False; it is {describe(is_set)}")
        if is_set:
            flags |= flag
    if not isinstance(tries, int) or isinstance(tries, bool):
        raise UnstorableValueError(f"a task's '_tries' must be an int; it is {describe(tries)}")
    if not -MAX_TRIES <= tries <= MAX_TRIES:
        raise UnstorableValueError(f"a task's '_tries' must lie within +-{MAX_TRIES}; it is {describe(tries)}")
    return make_entry(flags, tries)


cdef bytes dump_data(dict value, int* codec):
    """The JSON of a task without its special keys; None when nothing else is in it."""
    cdef dict data = {key: item for key, item in value.items() if key not in ("_done", "_aborted", "_tries")}
    if data:
        return dump_value(data, codec)
    codec[0] = NO_PAYLOAD
    return None


cdef int write_status_to_dict(dict value, uint32_t status) except -1:
    """Write a status into the dict of a task."""
    value["_done"] = (status & DONE) != 0
    value["_aborted"] = (status & ABORTED) != 0
    value["_tries"] = tries_of(status)
    return 0
