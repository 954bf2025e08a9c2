"""The cache of a tracker: a task is its data, which is a value like any other, and its status.

A task that was handed out is one dict with both. As long as the cache watches that dict, the dict's
``_done``, ``_aborted`` and ``_tries`` are the truth and are taken over ("absorbed") before anybody asks for
a status; a status that is set by a method is written into the dict at once. So both ways are one.
"""

from libc.stdint cimport int32_t, uint32_t

from tastypy_fast._cache cimport Cache
from tastypy_fast._entries cimport ABSENT, Entry
from tastypy_fast._entries cimport make_entry as make_cache_entry
from tastypy_fast._keys cimport describe, encode_key
from tastypy_fast._records cimport NO_PAYLOAD, load_value
from tastypy_fast._status cimport (
    ABORTED,
    DONE,
    ENTRIES,
    FLAGS,
    MAX_TRIES,
    PRESENT,
    StatusTable,
    make_entry,
    tries_of,
)
from tastypy_fast._taskdict cimport dump_data, show, status_in

from tastypy_fast.exceptions import (
    DuplicateKeyError,
    PersistentOrderedDictIntegrityError,
    UnstorableValueError,
)

__all__ = ["TrackerCache"]

cdef enum:
    # As many keys are looked up in the index with one call.
    CHUNK = 1000


cdef class TrackerCache(Cache):
    """A Cache of tasks."""

    def __init__(self, environment):
        self.status = StatusTable(environment)
        self.tracks = True
        Cache.__init__(self, environment)

    # What differs from a plain store

    cdef long long pending(self) except -1:
        return self.counted + self.status.touched

    cdef object decode(self, bytes key, long long order, int codec, bytes payload):
        cdef uint32_t status = self.status.get(order)
        cdef dict value = {}
        if not status & PRESENT:
            raise self.damaged(self.key_of(key), "the task has no status")
        show(value, status)
        if codec != NO_PAYLOAD:
            try:
                value.update(load_value(codec, payload))
            except (PersistentOrderedDictIntegrityError, TypeError, ValueError) as error:
                raise self.damaged(self.key_of(key), error) from error
        return value

    cdef bytes serialise(self, Entry entry, int* codec):
        self.absorb(entry)
        return dump_data(entry.value, codec)

    cdef int entry_made(self, Entry entry) except -1:
        entry.status_dirty = self.status.untouch(entry.order)
        return 0

    cdef int entry_gone(self, Entry entry) except -1:
        self.status.set(entry.order, 0, False)
        return 0

    cdef bint status_differs(self) except -1:
        return self.status.differs()

    cdef int write_status(self, object txn, set only, set skip) except -1:
        return self.status.write(txn, only, skip)

    cdef int status_written(self, set only, set skip) except -1:
        return self.status.written(only, skip)

    cdef int forget_status(self) except -1:
        return self.status.forget()

    cdef int refresh(self) except -1:
        cdef Entry entry
        cdef dict changed
        cdef list kept
        self.drop_unchanged()
        changed = self.status.changes()
        kept = [(item, self.status.get((<Entry>item).order)) for item in self.entries.values()
                if (<Entry>item).alive and ((<Entry>item).dirty or (<Entry>item).status_dirty)]
        Cache.refresh(self)
        self.status.forget()
        for item in self.entries.values():
            entry = item
            if entry.disk >= 0 and entry.order != entry.disk:
                # Deleted, or deleted and added again.
                self.status.set(entry.disk, 0, False)
        for item, status in kept:
            # (at the number it has now, which may be another)
            entry = item
            if self.entries.get(entry.key) is entry:
                self.set_status(entry.order, entry, status)
        for order, status in changed.items():
            # What the other cache has deleted stays deleted.
            if self.status.get(order) & PRESENT:
                self.status.set(order, status, True)
        return 0

    cdef list dirty_status_orders(self):
        return self.status.touched_orders()

    cdef int put(self, bytes key, object value, long long sync_at) except -1:
        if not self.writable:
            raise self.environment.refuse_write()
        if not isinstance(value, dict):
            raise UnstorableValueError(
                f"the value of a task must be a dict, for its data beside '_done', '_aborted' and '_tries'; "
                f"this is a {type(value).__name__}"
            )
        self.enter()
        try:
            self.assign(key, dict(value))
            self.settle(sync_at)
        finally:
            self.leave()
        return 0

    cdef int assign(self, bytes key, dict value) except -1:
        """Replace a task's data and status. Nothing changes when either cannot be stored."""
        cdef int codec = 0
        cdef uint32_t status = status_in(value)
        cdef bytes payload = dump_data(value, &codec)
        cdef Entry entry = self.entries.get(key)
        cdef long long order
        if entry is not None:
            order = entry.order if entry.alive else self.environment.next_order
            # (everything that can fail comes first, so that a task never has data and no status)
            self.status.load(order // ENTRIES)
            self.put_payload(entry, key, codec, payload)
        else:
            order = self.locate(key)
            if order == ABSENT:
                self.status.load(self.environment.next_order // ENTRIES)
                entry = self.put_new(key, codec, payload)
            else:
                self.status.load(order // ENTRIES)
                entry = make_cache_entry(key, order, order)
                self.adopt(entry)
                self.count_in(entry)
                self.put_payload(entry, key, codec, payload)
        self.set_status(entry.order, entry, status)
        return 0

    # Status

    cdef int absorb(self, Entry entry) except -1:
        """Take over what the special keys of a watched dict say."""
        cdef uint32_t status, before
        if entry.value is not None and entry.alive:
            status = status_in(entry.value)
            before = self.status.get(entry.order)
            if status != (before & ~<uint32_t>(FLAGS & ~(PRESENT | DONE | ABORTED))):
                self.set_status(entry.order, entry, status)
        return 0

    cdef int absorb_all(self) except -1:
        cdef Entry entry
        for item in list(self.entries.values()):
            entry = item
            if entry.value is not None and entry.alive:
                try:
                    self.absorb(entry)
                except UnstorableValueError as error:
                    raise UnstorableValueError(f"the task {describe(self.key_of(entry.key))}: {error}") from error
        return 0

    cdef uint32_t status_at(self, long long order, Entry entry) except? 0xffffffff:
        """The status of a task that is there."""
        cdef uint32_t status
        if entry is not None:
            self.absorb(entry)
        status = self.status.get(order)
        if not status & PRESENT:
            raise self.damaged("?", f"the task of order number {order} has no status")
        return status

    cdef int set_status(self, long long order, Entry entry, uint32_t status) except -1:
        if order == self.recent_order and self.recent_value is not None:
            show(self.recent_value, status)
        if entry is None:
            self.status.set(order, status, True)
            return 0
        self.status.set(order, status, False)
        entry.status_dirty = True
        if not entry.counted:
            entry.counted = True
            self.counted += 1
        if entry.value is not None:
            show(entry.value, status)
        return 0

    cdef long long order_of(self, object key) except? -3:
        """Where a task is (ABSENT: nowhere); ``found`` is then its entry, if the cache has one."""
        cdef bytes encoded
        self.found = None
        if key is self.recent_key and key is not None and self.writable and not self.entries:
            return self.recent_order
        encoded = encode_key(key)
        self.found = self.entries.get(encoded)
        return self.locate(encoded)

    cdef object status_of(self, object key):
        """(done, aborted, tries) of a task. KeyError when there is none."""
        cdef Entry entry
        cdef long long order
        cdef uint32_t status
        self.enter()
        try:
            order = self.order_of(key)
            if order == ABSENT:
                raise KeyError(key)
            entry = self.found
            status = self.status_at(order, entry)
            return (status & DONE) != 0, (status & ABORTED) != 0, tries_of(status)
        finally:
            self.leave()

    cdef object change(self, object key, uint32_t drop, uint32_t add, int tries, long long sync_at):
        """Drop flags of a task, add others, and add to its tries (``tries`` 2: set them to zero)."""
        cdef Entry entry
        cdef long long order
        cdef uint32_t status
        cdef int32_t count
        if not self.writable:
            raise self.environment.refuse_write()
        self.enter()
        try:
            order = self.order_of(key)
            if order == ABSENT:
                raise KeyError(key)
            entry = self.found
            status = self.status_at(order, entry)
            count = 0 if tries == 2 else tries_of(status) + tries
            if not -MAX_TRIES <= count <= MAX_TRIES:
                raise UnstorableValueError(f"the tries of task {describe(key)} must lie within +-{MAX_TRIES}")
            self.set_status(order, entry, make_entry((status & FLAGS & ~drop) | add, count))
            self.settle(sync_at)
        finally:
            self.leave()

    cdef object gate(self, object key, long long max_tries, bint allow_aborted, bint add, bint attempt, long long sync_at):
        """Whether a task is to be done; ``add`` adds a missing one, ``attempt`` counts the try."""
        cdef Entry entry
        cdef long long order
        cdef uint32_t status
        if (add or attempt) and not self.writable:
            raise self.environment.refuse_write()
        self.enter()
        try:
            order = self.order_of(key)
            if order == ABSENT:
                if not add:
                    raise KeyError(key)
                self.add_one(encode_key(key))
                order = self.order_of(key)
            entry = self.found
            status = self.status_at(order, entry)
            if status & DONE or (status & ABORTED and not allow_aborted) \
                    or (max_tries and tries_of(status) >= max_tries):
                return False
            if attempt:
                self.set_status(order, entry, make_entry(status & FLAGS, tries_of(status) + 1))
            self.settle(sync_at)
            return True
        finally:
            self.leave()

    cdef object count_all(self):
        """(tasks, done, aborted, tried at least once). Cost: the blocks' heads once, then nothing."""
        self.enter()
        try:
            self.resolve()
            self.absorb_all()
            try:
                self.status.count()
            except Exception as error:
                raise self.environment.translated(error) from error
            return (self.status.totals[0], self.status.totals[1], self.status.totals[2], self.status.totals[3])
        finally:
            self.leave()

    # Adding

    cdef int add_one(self, bytes key) except -1:
        cdef Entry entry
        self.status.load(self.environment.next_order // ENTRIES)
        entry = self.put_new(key, NO_PAYLOAD, None)
        return self.set_status(entry.order, entry, make_entry(PRESENT, 0))

    cdef int add_chunk(self, list keys, list originals, bint if_absent) except -1:
        cdef list orders
        cdef Entry entry
        cdef bytes key
        cdef Py_ssize_t position
        self.enter()
        try:
            orders = self.locate_many(keys)
            for position in range(len(keys)):
                key = keys[position]
                entry = self.entries.get(key)
                if entry.alive if entry is not None else orders[position] != ABSENT:
                    if not if_absent:
                        raise DuplicateKeyError(
                            f"the task {describe(originals[position])} is in the tracker already; add_if_absent() and "
                            f"add_many_if_absent() pass over such keys"
                        )
                else:
                    self.add_one(key)
        finally:
            self.leave()
        return 0

    cdef object add_many(self, object keys, bint if_absent, long long sync_at):
        """Add every key of an iterable, which is read in chunks and never held whole."""
        cdef Py_ssize_t chunk = min(sync_at, CHUNK) if sync_at else CHUNK
        cdef list encoded = [], originals = []
        if not self.writable:
            raise self.environment.refuse_write()
        try:
            for key in keys:
                encoded.append(encode_key(key))
                originals.append(key)
                if len(encoded) >= chunk:
                    ready, encoded = encoded, []
                    names, originals = originals, []
                    self.add_chunk(ready, names, if_absent)
                    self.settle(sync_at)
        finally:
            # Also what came before a key that was refused, or before the iterable raised.
            if encoded:
                self.add_chunk(encoded, originals, if_absent)
                self.settle(sync_at)

    cdef object merge(self, object key, dict changes, long long sync_at):
        """``dict.update()`` a task, which is added if it is not there."""
        cdef bytes encoded = encode_key(key)
        cdef long long order = 0
        cdef Entry entry
        cdef int codec = 0
        cdef dict value
        if not self.writable:
            raise self.environment.refuse_write()
        self.enter()
        try:
            entry = self.entries.get(encoded)
            if entry is None:
                raw = self.find(encoded, &order)
                value = {}
                if raw is not None:
                    entry = self.entry_from_record(encoded, order, raw)
                    value = self.decode(encoded, order, entry.codec, entry.payload)
                self.assign(encoded, {**value, **changes})
            elif entry.alive and entry.value is not None:
                # Somebody may hold this dict: it changes in place, once it is sure that it can be stored.
                value = {**entry.value, **changes}
                status_in(value)
                dump_data(value, &codec)
                entry.value.update(changes)
                self.absorb(entry)
                if not entry.counted:
                    entry.counted = True
                    self.counted += 1
            else:
                value = self.decode(encoded, entry.order, entry.codec, entry.payload) if entry.alive else {}
                self.assign(encoded, {**value, **changes})
            self.settle(sync_at)
        finally:
            self.leave()

    def check(self):
        """As Cache.check(), and the statuses in memory."""
        Cache.check(self)
        self.absorb_all()
        self.status.check()
