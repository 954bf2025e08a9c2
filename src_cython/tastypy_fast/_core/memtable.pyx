"""Hold the changes of the write-ahead log in memtables until the checkpoint, and read the databases through them.

A Memtable has the changes of one database. A MergedTransaction reads memtables on top of a transaction of LMDB. A
reader therefore sees the databases as they will be after the checkpoint. The class has the part of LMDB's interface
that a store uses.

A change is one of: a value, None, which deletes the key, or a bytearray, which patches a status block. A patch is
applied when the block is read, because most blocks are patched many times before this process reads them.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.string cimport memcpy

from tastypy_fast._core.cache_entry cimport pack
from tastypy_fast._core.deleted_runs cimport DeletedRuns, DeletedStretch
from tastypy_fast._core.status_block cimport latest, patched

from bisect import bisect_left, bisect_right, insort
from itertools import islice

from tastypy_fast._core.key_order import sorted_items

__all__ = ["Memtable", "MergedCursor", "MergedTransaction"]

# Stands for a key that a memtable does not have.
MISSING = object()
cdef enum:
    # A patch of more bytes is reduced to the latest change of each status, which takes at most 4 kB.
    LONGEST_PATCH = 8000
    # So many keys are inserted into the sorted ones, because comparing all of them again would cost more.
    FEW = 16


cdef object sort_key_of(bytes key, bint is_integer):
    """Return an object that sorts as LMDB sorts the key, because LMDB compares integer keys as numbers."""
    cdef long long number
    if not is_integer:
        return key
    memcpy(&number, PyBytes_AS_STRING(key), 8)
    return number


cdef object patched_if(object change, object below):
    """Apply a change to the value below it, and return the result. None stands for no value."""
    if type(change) is not bytearray:
        return change
    return patched(None if below is None else bytes(below), change)


@cython.final
cdef class Memtable:
    """The changes of one database. ``integer_keys`` says that the database has integer keys."""

    def __init__(self, bint integer_keys):
        self.changes = {}
        self.integer_keys = integer_keys
        self.sorted_keys = []
        self.largest = -1
        self.runs = DeletedRuns()

    def __len__(self):
        return len(self.changes)

    cpdef int put(self, bytes key, object change) except -1:
        """Set the change of a key, and replace an earlier change."""
        cdef long long number
        self.changes[key] = change
        if self.integer_keys:
            memcpy(&number, PyBytes_AS_STRING(key), 8)
            self.largest = max(self.largest, number)
            if change is not None and self.runs.firsts:
                self.runs.remove(number)
        return 0

    cdef int patch(self, bytes key, bytearray patch) except -1:
        """Add a patch of a status block to the changes. The memtable owns the bytearray afterwards."""
        cdef object found = self.changes.get(key, MISSING)
        self.has_patches = True
        if type(found) is bytearray:
            found += patch
            if len(found) > LONGEST_PATCH:
                self.changes[key] = latest(found)
        else:
            self.put(key, patch if found is MISSING else patched(found, patch))
        return 0

    cdef int update(self, Memtable other) except -1:
        """Add all changes of another memtable, which are later than the changes of this one."""
        if other.has_patches:
            for key, change in other.changes.items():
                if type(change) is bytearray:
                    self.patch(key, change)
                else:
                    self.changes[key] = change
        else:
            self.changes.update(other.changes)
        self.largest = max(self.largest, other.largest)
        if self.runs.firsts:
            for key, change in other.changes.items():
                if change is not None:
                    self.runs.remove(sort_key_of(key, True))
        return 0

    cdef list sort(self):
        """Return the sort keys in order. Keys are only added to a memtable, so the new keys are the last in the dict.

        Returns a new list after a change, because an iterator may be reading the old list.
        """
        cdef list added, ordered
        cdef Py_ssize_t count = len(self.changes) - len(self.sorted_keys)
        if count:
            added = [sort_key_of(key, self.integer_keys) for key in islice(reversed(self.changes), count)]
            if count <= FEW:
                ordered = self.sorted_keys.copy()
                for key in added:
                    insort(ordered, key)
            else:
                added.sort()
                # Two sorted runs are merged in linear time.
                ordered = self.sorted_keys + added
                ordered.sort()
            self.sorted_keys = ordered
        return self.sorted_keys

    cdef bytes key_of(self, object sort_key):
        return pack(sort_key) if self.integer_keys else sort_key

    cdef object change_of(self, object sort_key):
        return self.changes[self.key_of(sort_key)]

    def sorted_runs(self, Py_ssize_t most, Py_ssize_t size):
        """Yield the changes in key order, as lists of at most ``most`` pairs and of about ``size`` bytes."""
        cdef list run = []
        cdef Py_ssize_t held = 0
        for pair in sorted_items(self.changes, self.integer_keys):
            key, change = pair
            run.append(pair)
            held += len(key) + (0 if change is None else len(change))
            if len(run) == most or held >= size:
                yield run
                run = []
                held = 0
        if run:
            yield run


# Reading through memtables

cdef class MergedTransaction:
    """A transaction of LMDB that is read through memtables.

    ``handles`` are the databases that have ``memtables``. The first two databases have the same number of entries,
    which is ``count`` including the changes.
    """

    def __init__(self, txn not None, tuple handles not None, tuple memtables not None, long long count):
        self.txn = txn
        self.handles = handles
        self.memtables = memtables
        self.count = count

    cdef Memtable memtable_of(self, object db):
        cdef Py_ssize_t position
        for position in range(len(self.handles)):
            if self.handles[position] is db:
                return <Memtable>self.memtables[position]
        return None

    cdef object find(self, bytes key, object db):
        """Return the value of a key, or None."""
        cdef Memtable memtable = self.memtable_of(db)
        found = MISSING if memtable is None else memtable.changes.get(key, MISSING)
        if found is MISSING or type(found) is bytearray:
            below = self.txn.get(key, None, db)
            return below if found is MISSING else patched_if(found, below)
        return found

    def get(self, bytes key not None, default=None, db=None):
        """Return the value of a key, or ``default``."""
        found = self.find(key, db)
        return default if found is None else found

    def cursor(self, db):
        """Return a cursor that reads through the memtable of the database."""
        cdef Memtable memtable = self.memtable_of(db)
        cursor = self.txn.cursor(db)
        return MergedCursor(cursor, memtable) if memtable is not None and memtable.changes else cursor

    def stat(self, db):
        """Return LMDB's statistics of a database. The number of entries of the first two counts the changes."""
        facts = self.txn.stat(db)
        if db is self.handles[0] or db is self.handles[1]:
            facts["entries"] = self.count
        return facts

    def id(self):
        """Return the number of the transaction."""
        return self.txn.id()

    def abort(self):
        """End the transaction."""
        self.txn.abort()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.abort()


cdef class MergedCursor:
    """A cursor on a database that is read through a memtable. ``position`` is its key, or None."""

    def __init__(self, cursor not None, Memtable memtable not None):
        self.cursor = cursor
        self.memtable = memtable

    def key(self):
        """Return the key at the cursor, or empty bytes if it has none."""
        return b"" if self.position is None else self.position

    cdef bint move_to_first_of(self, object pairs) except -1:
        self.position = None
        for key, _ in pairs:
            self.position = bytes(key)
            return True
        return False

    def first(self):
        """Move to the first key."""
        return self.move_to_first_of(self.forwards(None))

    def last(self):
        """Move to the last key."""
        cdef Memtable memtable = self.memtable
        cdef bytes key
        if memtable.integer_keys:
            # The result is nearly always the last key on disk or the largest change, so try these without sorting.
            key = bytes(self.cursor.key()) if self.cursor.last() else None
            if memtable.largest > (-1 if key is None else sort_key_of(key, True)):
                key = pack(memtable.largest)
            if key is not None and memtable.changes.get(key, MISSING) is not None:
                self.position = key
                return True
        return self.move_to_first_of(self.backwards(None, True))

    def prev(self):
        """Move to the previous key."""
        return self.move_to_first_of(self.backwards(self.position, False))

    def set_range(self, bytes key not None):
        """Move to the first key that is not less than ``key``."""
        return self.move_to_first_of(self.forwards(key))

    def set_key(self, bytes key not None):
        """Move to a key if it exists, and return whether it does."""
        found = self.memtable.changes.get(key, MISSING)
        self.position = key if (self.cursor.set_key(key) if found is MISSING else found is not None) else None
        return self.position is not None

    def iternext(self):
        """Yield the pairs from the cursor forwards."""
        return self.forwards(self.position)

    def iterprev(self):
        """Yield the pairs from the cursor backwards."""
        return self.backwards(self.position, True)

    def __iter__(self):
        return self.iternext()

    def forwards(self, start):
        """Yield the pairs from ``start`` forwards, or all pairs if it is None."""
        cdef Py_ssize_t at = 0
        cdef long long end
        cdef Memtable memtable = self.memtable
        cdef list ordered = memtable.sort()
        cdef DeletedStretch stretch = DeletedStretch(memtable.runs, False) if memtable.integer_keys else None
        if start is None:
            found = self.cursor.first()
        else:
            found = self.cursor.set_range(start)
            at = bisect_left(ordered, sort_key_of(start, memtable.integer_keys))
        while found:
            found = False
            for key, value in self.cursor.iternext():
                sort_key = sort_key_of(bytes(key), memtable.integer_keys)
                while at < len(ordered) and ordered[at] < sort_key:
                    changed = patched_if(memtable.change_of(ordered[at]), None)
                    if changed is not None:
                        if stretch is not None:
                            stretch.stop()
                        yield memtable.key_of(ordered[at]), changed
                    at += 1
                if at < len(ordered) and ordered[at] == sort_key:
                    value = patched_if(memtable.change_of(ordered[at]), value)
                    at += 1
                    if value is None:
                        if stretch is not None:
                            end = stretch.skip(sort_key)
                            if end != sort_key:
                                found = self.cursor.set_range(pack(end + 1))
                                at = bisect_left(ordered, end + 1)
                                break
                        continue
                if stretch is not None:
                    stretch.stop()
                yield key, value
        if stretch is not None:
            stretch.stop()
        while at < len(ordered):
            changed = patched_if(memtable.change_of(ordered[at]), None)
            if changed is not None:
                yield memtable.key_of(ordered[at]), changed
            at += 1

    def backwards(self, start, bint included):
        """Yield the pairs from ``start`` backwards, or all pairs if it is None. ``included`` includes its own pair."""
        cdef Py_ssize_t at
        cdef long long end
        cdef Memtable memtable = self.memtable
        cdef list ordered = memtable.sort()
        cdef DeletedStretch stretch = DeletedStretch(memtable.runs, True) if memtable.integer_keys else None
        at = len(ordered)
        found = self.seek_back(start, included)
        if start is not None:
            at = (bisect_right if included else bisect_left)(ordered, sort_key_of(start, memtable.integer_keys))
        while found:
            found = False
            for key, value in self.cursor.iterprev():
                sort_key = sort_key_of(bytes(key), memtable.integer_keys)
                while at > 0 and ordered[at - 1] > sort_key:
                    at -= 1
                    changed = patched_if(memtable.change_of(ordered[at]), None)
                    if changed is not None:
                        if stretch is not None:
                            stretch.stop()
                        yield memtable.key_of(ordered[at]), changed
                if at > 0 and ordered[at - 1] == sort_key:
                    at -= 1
                    value = patched_if(memtable.change_of(ordered[at]), value)
                    if value is None:
                        if stretch is not None:
                            end = stretch.skip(sort_key)
                            if end != sort_key:
                                found = self.seek_back(pack(end), False)
                                at = bisect_left(ordered, end)
                                break
                        continue
                if stretch is not None:
                    stretch.stop()
                yield key, value
        if stretch is not None:
            stretch.stop()
        while at > 0:
            at -= 1
            changed = patched_if(memtable.change_of(ordered[at]), None)
            if changed is not None:
                yield memtable.key_of(ordered[at]), changed

    cdef bint seek_back(self, object start, bint included) except -1:
        """Move the cursor below to the last key that is less than ``start``, or equal to it if ``included``."""
        if start is None or not self.cursor.set_range(start):
            return self.cursor.last()
        return (included and bytes(self.cursor.key()) == start) or self.cursor.prev()

    def getmulti(self, keys):
        """Return the pairs of the ``keys`` that exist, in any order."""
        cdef list wanted = [], found = [], patches = []
        for key in keys:
            value = self.memtable.changes.get(key, MISSING)
            if value is MISSING:
                wanted.append(key)
            elif type(value) is bytearray:
                patches.append((key, patched_if(value, self.cursor.get(key))))
            elif value is not None:
                found.append((key, value))
        if wanted:
            found += self.cursor.getmulti(wanted)
        return found + patches
