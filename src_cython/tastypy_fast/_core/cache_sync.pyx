"""Syncing: what differs from the disk gets there, all of it or nothing."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport PyObject

from tastypy_fast._core.cache_entry cimport ABSENT, Entry, IndexItems, RecordItems, is_referenced, pack
from tastypy_fast._core.key_codec cimport describe, index_key
from tastypy_fast._core.watched_values cimport Watching

from tastypy_fast._core.cache_entry import seq_of_entry
from tastypy_fast.exceptions import UnstorableValueError

__all__ = ["Syncing"]

cdef enum:
    # Records of order numbers that are no further apart are in one page, most likely.
    NEAR = 8


cdef class Syncing(Watching):
    """What can write all that it knows of."""

    cdef int settle(self, long long sync_at) except -1:
        """Sync when there is enough to sync. ``sync_at`` is 0 for an instance on hold."""
        if sync_at and self.pending() >= sync_at:
            self.sync_entries(self.store.flushes_each_sync, None, None, True)
        return 0

    cpdef int sync(self, bint flush) except -1:
        """Write everything that differs. ``flush``: the data is on the disk when this returns."""
        return self.sync_entries(flush, None, None, False)

    def finish(self):
        """Sync, and refuse whatever comes later. A thread that waits in an operation finds out there."""
        # (not by enter(): who only reads closes a store whose files are gone, too)
        self.store.lock.acquire()
        self.busy += 1
        try:
            self.sync(True)
            self.forget_entries()
            self.disk_count = -1
            self.closed = True
        finally:
            self.busy -= 1
            self.store.lock.release()

    def sync_one(self, bytes key, original):
        """Write one key. KeyError when it is neither there nor deleted since the last sync."""
        cdef Entry entry
        cdef long long seq = ABSENT
        if not self.writable:
            raise self.store.refuse_write()
        self.begin_op()
        try:
            self.resolve()
            entry = self.entry_of(key)
            if entry is None:
                seq = self.find_seq(key)
                if seq == ABSENT:
                    raise KeyError(original)
                seqs = {seq}
            else:
                if entry.shelved:
                    self.take_down(entry)
                seqs = {entry.disk_seq, entry.seq}
            self.sync_entries(True, entry, seqs, False)
        finally:
            self.end_op()

    cdef int sync_entries(self, bint flush, Entry only, set seqs, bint automatic) except -1:
        """Sync everything, or if ``orders`` are given only the status at these and the entry ``only``."""
        cdef Entry entry
        cdef int codec = 0
        cdef bytes payload
        cdef list changes = [], failures = []
        cdef set failed = set(), skip = set()
        cdef bint single = seqs is not None
        if not self.writable or self.closed:
            return 0
        self.begin_op()
        try:
            if automatic:
                self.look_through_shelf()
            elif not single:
                self.take_all_down()
            for item in ([only] if only is not None else [] if single else list(self.entries.values())):
                entry = item
                if entry.value is not None:
                    # Asked before its JSON is made: whoever changes it after that holds it already now,
                    # because nothing is handed out meanwhile.
                    entry.borrowed = is_referenced(<PyObject*>entry.value, 0)
                    try:
                        payload = self.serialise(entry, &codec)
                    except (TypeError, ValueError) as error:
                        failures.append((self.key_of(entry.key), error))
                        failed.add(entry)
                        continue
                    if codec != entry.codec or payload != entry.payload:
                        entry.codec = codec
                        entry.payload = payload
                        entry.dirty = True
                if entry.dirty:
                    changes.append(entry)
            if failed:
                self.resolve()
                for item in failed:
                    skip |= {(<Entry>item).seq, (<Entry>item).disk_seq}
            if changes or self.status_differs():
                self.store.write_sync(
                    lambda txn: self.write_changes(txn, changes, seqs, skip),
                    0 if single else count_places(changes) + self.status_places(), count_bytes(changes),
                )
                self.status_written(seqs, skip)
                if single:
                    if not failures:
                        self.one_written(only)
                else:
                    self.written(changes, failed)
                self.disk_version = self.store.disk_version
                self.disk_count = -1
            elif not single:
                self.written(changes, failed)
            if flush:
                self.store.flush()
        finally:
            self.end_op()
        if failures:
            raise unstorable(failures)
        return 0

    cdef bint has_changes(self) except -1:
        """Whether a sync has anything to look at."""
        return len(self.entries) > 0 or len(self.shelf) > 0 or self.status_differs()

    cdef bint status_differs(self) except -1:
        return False

    cdef Py_ssize_t status_places(self) except -1:
        """How many pages of statuses differ."""
        return 0

    cdef int write_changes(self, object txn, list changes, set seqs, set skip) except -1:
        """Everything that a sync writes, in one transaction. May run again after one that failed: it changes
        nothing in memory but facts that hold all the same."""
        cdef Entry entry
        cdef bytes index
        cdef long long stored, last = -1, previous_appended = -1, previous_replaced = -1
        cdef list fresh = [], absent = [], appended = [], replaced = []
        cdef bint deleted = False, in_order = True
        # In a block that syncs more than once, a value may be written twice in one transaction. Over the pages of a
        # large one that were written there, the engine puts a small one and keeps all: they are given back first.
        cdef bint again = self.store.images is not None and self.store.wrote
        # (asked for before the last ones may be deleted)
        cdef long long next_seq = self.store.next_free()
        values = self.store.values
        order_db = self.store.order
        # A log need not look for what is known not to be there.
        add_new = getattr(txn, "add_new", None)

        # New keys go into the index blindly. When one was there after all, the index still holds its old
        # number, which tells: one descent of the tree for each key of a fill, not two.
        for item in changes:
            entry = item
            if entry.exists and entry.disk_seq < 0 and not entry.relocated:
                if entry.seq < 0:
                    entry.seq = self.store.allocate()
                if PyBytes_GET_SIZE(entry.key) > 511 and txn.get(index_key(entry.key), None, order_db) is not None:
                    self.find_record(entry.key, &stored)
                    entry.disk_seq = entry.seq = stored
                    continue
                (absent if add_new is not None and entry.disk_seq == ABSENT else fresh).append(entry)
        if absent:
            add_new(IndexItems(absent))
        if fresh:
            cursor = txn.cursor(order_db)
            if cursor.putmulti(IndexItems(fresh), True, False)[1] != len(fresh):
                for item in fresh:
                    entry = item
                    stored = self.unpack(txn.get(index_key(entry.key), None, order_db))
                    if stored != entry.seq:
                        self.untrack_new(entry)
                        entry.disk_seq = entry.seq = stored
        if changes:
            self.store.wrote = True
            if self.store.images is not None:
                self.record_before_images(txn, changes)

        cursor = txn.cursor(values)
        if cursor.last():
            last = self.unpack(cursor.key())
        for item in changes:
            entry = item
            if entry.disk_seq >= 0 and entry.seq != entry.disk_seq:
                index = index_key(entry.key)
                txn.delete(pack(entry.disk_seq), db=values)
                deleted = True
                if entry.exists:
                    txn.put(index, pack(entry.seq), db=order_db)
                else:
                    txn.delete(index, db=order_db)
            elif entry.relocated:
                txn.put(index_key(entry.key), pack(entry.seq), db=order_db)
            if not entry.exists:
                continue
            if entry.seq > last:
                in_order = in_order and entry.seq > previous_appended
                previous_appended = entry.seq
                appended.append(entry)
            else:
                in_order = in_order and entry.seq > previous_replaced
                previous_replaced = entry.seq
                replaced.append(entry)
        if not in_order:
            appended.sort(key=seq_of_entry)
            replaced.sort(key=seq_of_entry)
        if again:
            for item in replaced:
                txn.delete(pack((<Entry>item).seq), db=values)
        if replaced:
            cursor.putmulti(RecordItems(replaced, self.store.gzipped))
        if appended:
            items = RecordItems(appended, self.store.gzipped)
            if cursor.putmulti(items, True, True, True)[1] != len(appended):
                raise self.damaged("?", "records could not be appended in order")
        self.write_status(txn, seqs, skip)
        if deleted:
            # Numbers only ever grow, also when the last ones are gone.
            txn.put(b"next", pack(max(next_seq, self.store.next_order)), db=self.store.meta)
        return 0

    cdef int record_before_images(self, object txn, list changes) except -1:
        """Note what the disk has where keys are about to change, for revert(): the image of an order number is
        its status and its record, the status alone if nothing else was changed yet, or empty if it is new."""
        cdef Entry entry
        cdef bytes number
        images = self.store.images
        for item in changes:
            entry = item
            if entry.disk_seq >= 0:
                number = pack(entry.disk_seq)
                image = txn.get(number, None, images)
                if image is None:
                    self.store.before_image_count += 1
                    image = self.status_on_disk(txn, entry.disk_seq)
                if PyBytes_GET_SIZE(image) == 4:
                    txn.put(number, image + txn.get(number, b"", self.store.values), db=images)
            if entry.exists and entry.seq != entry.disk_seq:
                self.store.before_image_count += txn.put(pack(entry.seq), b"", overwrite=False, db=images)
        return 0

    cdef int one_written(self, Entry entry) except -1:
        if entry is not None:
            self.remove_len_delta(entry)
            self.untrack_new(entry)
            self.settle_entry(entry)
            if entry.value is None:
                del self.entries[entry.key]
        return 0

    cdef int settle_entry(self, Entry entry) except -1:
        """What the entry says is on disk now; it is only watched from here on."""
        if entry.dirty:
            self.cache_version += 1
        entry.disk_seq = entry.seq if entry.exists else ABSENT
        entry.dirty = entry.relocated = entry.status_dirty = False
        self.dirty_count -= entry.counts_as_dirty
        entry.counts_as_dirty = False
        return 0

    cdef int written(self, list changes, set failed) except -1:
        """All that differed is on disk, but for what failed: let it go. Values that somebody still holds a
        reference to (``pod[k].append(f(pod))`` is in the middle of it) stay watched; the latest of them are looked at
        by each sync, and the others go on the shelf."""
        cdef Entry entry
        cdef dict entries = self.entries
        cdef long long left = 0
        if changes:
            self.cache_version += 1
        kept = []
        older = []
        for item in reversed(list(entries.values())):
            entry = item
            if entry in failed:
                kept.append(entry)
                left += entry.counts_as_dirty
            elif entry.exists and entry.value is not None and entry.borrowed:
                entry.disk_seq = entry.seq
                entry.dirty = entry.relocated = entry.counts_as_dirty = entry.status_dirty = False
                (kept if len(kept) < self.watched_by_each else older).append(entry)
        kept.reverse()
        self.entries = {(<Entry>item).key: item for item in kept}
        self.put_on_shelf(older)
        self.borrowed = set()
        self.unresolved = []
        self.new_entries = {}
        self.new_seqs = []
        self.len_delta = 0
        self.dirty_count = left
        for item in kept:
            entry = item
            self.add_len_delta(entry)
            if entry in failed and entry.exists and (entry.disk_seq < 0 or entry.relocated):
                self.track_new(entry)
        return 0

    cpdef int revert(self) except -1:
        """Drop every change since the last sync."""
        if not self.writable:
            return 0
        self.begin_op()
        try:
            self.forget_entries()
            self.forget_status()
        finally:
            self.end_op()
        return 0

    cdef int forget_entries(self) except -1:
        # (let go of at the end, when all is in place: that may run anybody's code)
        _entries, _shelf = self.entries, self.shelf
        self.entries = {}
        self.shelf = {}
        self.turns.clear()
        self.unresolved = []
        self.new_seqs = []
        self.new_entries = {}
        self.borrowed = set()
        self.len_delta = self.dirty_count = 0
        self.cache_version += 1
        self.recent_key = self.recent = None
        self.era += 1
        return 0


cdef Py_ssize_t count_places(list changes) except -1:
    """In how many places of the databases changes lie, about: those next to the one before count as one."""
    cdef Entry entry
    cdef bytes key, last_key = b""
    cdef long long last = -NEAR
    cdef Py_ssize_t places = 0
    for item in changes:
        entry = item
        if entry.disk_seq >= 0 and entry.exists:
            places += not -NEAR < entry.disk_seq - last < NEAR
            last = entry.disk_seq
        else:
            key = entry.key
            places += not are_near(last_key, key)
            last_key = key
    return places


cdef Py_ssize_t count_key_places(list keys) except -1:
    """The same for new keys."""
    cdef bytes key, last_key = b""
    cdef Py_ssize_t places = 0
    for key in keys:
        places += not are_near(last_key, key)
        last_key = key
    return places


cdef bint are_near(bytes before, bytes key) noexcept:
    """Whether a key comes after another one and begins with the same half: new ones lie in the index as they come."""
    cdef const char* a = PyBytes_AS_STRING(before)
    cdef const char* b = PyBytes_AS_STRING(key)
    cdef Py_ssize_t at = 0, most = min(PyBytes_GET_SIZE(before), PyBytes_GET_SIZE(key))
    while at < most and a[at] == b[at]:
        at += 1
    return 2 * at >= PyBytes_GET_SIZE(key) and (
        at == most or <unsigned char>a[at] < <unsigned char>b[at])


cdef Py_ssize_t count_bytes(list changes) except -1:
    """How many bytes the changes have, about."""
    cdef Entry entry
    cdef Py_ssize_t size = 0
    for item in changes:
        entry = item
        size += PyBytes_GET_SIZE(entry.key) + (PyBytes_GET_SIZE(entry.payload) if entry.payload is not None else 0)
    return size


cdef object unstorable(list failures):
    """One error for all the values that a sync could not write."""
    key, error = failures[0]
    more = f" (and {len(failures) - 1} more: {', '.join(describe(key) for key, _ in failures[1:6])}" \
           f"{', ...' if len(failures) > 6 else ''})" if len(failures) > 1 else ""
    result = UnstorableValueError(
        f"the value of key {describe(key)} was changed to something that cannot be stored: {error}{more}; "
        f"everything else was saved. Change the value and sync again, or revert()"
    )
    result.__cause__ = error
    return result
