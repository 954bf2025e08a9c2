"""Keep the statuses of a tracker's tasks in memory, scan them, count them, and write the dirty ones to disk."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcmp, memcpy, memset

from tastypy_fast._core.cache_entry cimport pack
from tastypy_fast._core.claim_record cimport claim_key
from tastypy_fast._core.status_summary cimport StatusSummary, begin_writing, stored_summary, current_summary, publish
from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.wal cimport LoggedTransaction, as_logged
from tastypy_fast._core.status_block cimport (
    ABORTED,
    CLAIMED,
    DONE,
    TASKS_PER_BLOCK,
    PRESENT,
    Block,
    Head,
    Layout,
    add_to_head,
    decode_block,
    count_candidates,
    tries_of,
)

from tastypy_fast._core.status_summary import SUMMARY_KEY
from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError

__all__ = ["StatusTable"]

cdef enum:
    # How many unchanged blocks stay in memory after a sync: the blocks of a million tasks, 5 MB.
    KEPT = 2000


cdef bint is_chosen(long long seq, set only, set skip) except -1:
    return (only is None or seq in only) and seq not in skip


@cython.final
cdef class StatusTable:
    """The statuses of one store, including all changes in memory.

    ``blocks`` maps a block number to the block in memory. ``differing`` has those blocks that differ from the disk.
    ``room`` is the number of blocks in memory above which unchanged blocks are dropped. ``last_number`` and
    ``last_block`` are the block that was used last. ``touched`` counts the dirty statuses for which no cache entry
    counts.

    ``openings`` counts the changes that make a task unfinished again, or lower its tries. An iterator over unfinished
    tasks may have skipped the task before. ``last_opened`` is the seq of the last of these changes. ``abortions`` and
    ``last_aborted`` are the same for iterators over aborted tasks.

    ``compared`` says that the number of statuses was compared with the number of tasks.
    """

    def __init__(self, StoreBase store not None):
        self.store = store
        self.room = KEPT
        self.forget()

    cdef Block read(self, object txn, long long number):
        cdef Block block = Block.__new__(Block)
        try:
            decode_block(txn.get(pack(number), None, self.store.status), &block.data)
        except Exception as error:
            self.store.reraise(error)
        return block

    cdef uint32_t on_disk(self, object txn, long long seq) except? 0xffffffff:
        """Return the entry of a seq on disk."""
        cdef Block block = self.read(txn, seq // TASKS_PER_BLOCK)
        return block.data.entry[seq % TASKS_PER_BLOCK]

    cdef Block load(self, long long number):
        cdef Block block
        if number == self.last_number:
            return self.last_block
        block = self.blocks.get(number)
        if block is None:
            if len(self.blocks) >= self.room:
                self.trim()
            block = self.read(self.store.reader(), number)
            self.blocks[number] = block
        self.last_number = number
        self.last_block = block
        return block

    cdef uint32_t get(self, long long seq) except? 0xffffffff:
        return self.load(seq // TASKS_PER_BLOCK).data.entry[seq % TASKS_PER_BLOCK]

    cdef int set(self, long long seq, uint32_t entry, bint count) except -1:
        """Change an entry. Returns whether it differs from the disk afterwards.

        ``count`` says that the status itself counts as dirty, because no cache entry counts for the task.
        """
        cdef Block block = self.load(seq // TASKS_PER_BLOCK)
        cdef int slot = seq % TASKS_PER_BLOCK
        cdef uint32_t before = block.data.entry[slot]
        cdef Head change
        if before != entry:
            self.note_change(seq, block, entry, count)
            # Iterators that have skipped this task must read its status again.
            if before & PRESENT and (before & ~entry & (DONE | ABORTED) or tries_of(entry) < tries_of(before)):
                self.openings += 1
                self.last_opened = seq
            if entry & ~before & ABORTED:
                self.abortions += 1
                self.last_aborted = seq
            add_to_head(&block.data.head, before, -1)
            add_to_head(&block.data.head, entry, 1)
            block.data.entry[slot] = entry
            if self.totals_known:
                memset(&change, 0, sizeof(Head))
                add_to_head(&change, entry, 1)
                self.totals[0] += change.present
                self.totals[1] += change.done
                self.totals[2] += change.aborted
                self.totals[3] += change.tried
                memset(&change, 0, sizeof(Head))
                add_to_head(&change, before, 1)
                self.totals[0] -= change.present
                self.totals[1] -= change.done
                self.totals[2] -= change.aborted
                self.totals[3] -= change.tried
        return block.touched[slot] != 0

    cdef int note_change(self, long long seq, Block block, uint32_t entry, bint count) except -1:
        """Mark an entry as about to change. An entry that becomes equal to the disk is no longer dirty."""
        cdef int slot = seq % TASKS_PER_BLOCK
        if block.touched[slot] == 0:
            block.touch(slot, 1 if count else 2)
            if block.touched_count == 1:
                self.differing[seq // TASKS_PER_BLOCK] = block
            self.touched += count
        elif block.before[slot] == entry:
            self.touched -= block.touched[slot] == 1
            block.mark_clean(slot)
            if block.touched_count == 0:
                del self.differing[seq // TASKS_PER_BLOCK]
        return 0

    cdef bint untouch(self, long long seq) except -1:
        """Stop counting the status of this task, because its cache entry counts now. Returns whether it is dirty."""
        cdef Block block = self.blocks.get(seq // TASKS_PER_BLOCK)
        cdef int slot = seq % TASKS_PER_BLOCK
        if block is None or block.touched[slot] == 0:
            return False
        if block.touched[slot] == 1:
            block.touched[slot] = 2
            self.touched -= 1
        return True

    cdef list scan(self, long long after, int limit, uint32_t flags, uint32_t mask, long long max_tries):
        """Return up to ``limit`` seqs above ``after`` with these ``flags`` under ``mask`` and fewer than ``max_tries``.

        0 for ``max_tries`` means no limit. The caller holds the store's lock. Cost: one pass over the statuses between
        the first and the last seq that is returned. With a summary, blocks that cannot have these tasks are skipped.
        """
        cdef list found = []
        cdef StatusSummary summary = current_summary(self.store)
        cdef long long number = (after + 1) // TASKS_PER_BLOCK, end = 0
        cdef long long on_disk = -1
        cdef int slot = (after + 1) % TASKS_PER_BLOCK
        cdef Block block
        cdef const Layout* data
        cdef uint32_t entry
        cursor = self.store.reader().cursor(self.store.status)
        blocks = None
        raw = None
        if cursor.last():
            memcpy(&end, PyBytes_AS_STRING(cursor.key()), 8)
        end = max(end, max(self.differing, default=0)) + 1
        while number < end:
            block = self.blocks.get(number)
            if block is not None:
                data = &block.data
            elif summary is not None and not count_candidates(summary.at(number), flags, mask):
                number += 1
                slot = 0
                continue
            else:
                if on_disk < number:
                    # Seek if the scan begins here, or if it stepped over blocks in memory.
                    if blocks is None or on_disk < number - 1:
                        blocks = cursor.iternext() if cursor.set_range(pack(number)) else iter(())
                    pair = next(blocks, None)
                    if pair is None:
                        # The disk has no more blocks. Only blocks in memory are left.
                        on_disk = end
                    else:
                        raw = pair[1]
                        if PyBytes_GET_SIZE(raw) != sizeof(Layout):
                            raise PersistentOrderedDictIntegrityError("a block of statuses has the wrong size")
                        memcpy(&on_disk, PyBytes_AS_STRING(pair[0]), 8)
                if on_disk != number:
                    if summary is not None:
                        raise PersistentOrderedDictIntegrityError(f"the block {number} of statuses is not there")
                    number += 1
                    slot = 0
                    continue
                data = <const Layout*>PyBytes_AS_STRING(raw)
                if summary is not None and memcmp(&data.head, summary.at(number), sizeof(Head)) != 0:
                    raise PersistentOrderedDictIntegrityError(f"block {number} of the statuses contradicts the summary")
            if count_candidates(&data.head, flags, mask):
                while slot < TASKS_PER_BLOCK:
                    entry = data.entry[slot]
                    if entry & mask == flags and (max_tries == 0 or tries_of(entry) < max_tries):
                        found.append(number * TASKS_PER_BLOCK + slot)
                        if len(found) == limit:
                            return found
                    slot += 1
            number += 1
            slot = 0
        return found

    cdef int count(self) except -1:
        """Compute ``totals``: tasks, done, aborted, tried. The caller holds the store's lock."""
        cdef Block block
        cdef StatusSummary summary
        cdef Head head
        cdef long long number, on_disk = 0
        if self.totals_known:
            return 0
        memset(self.totals, 0, sizeof(self.totals))
        summary = current_summary(self.store)
        if summary is None:
            summary = stored_summary(self.store)
        if summary is not None:
            for number in range(summary.size()):
                on_disk += self.count_on_disk(number, summary.at(number))
        else:
            summary = StatusSummary()
            for key, raw in self.store.reader().cursor(self.store.status):
                if PyBytes_GET_SIZE(raw) != sizeof(Layout):
                    raise PersistentOrderedDictIntegrityError("a block of statuses has the wrong size")
                memcpy(&number, PyBytes_AS_STRING(key), 8)
                memcpy(&head, PyBytes_AS_STRING(raw), sizeof(Head))
                on_disk += self.count_on_disk(number, &head)
                summary.put(number, &head)
            publish(self.store, summary)
        if on_disk != self.store.count():
            raise PersistentOrderedDictIntegrityError("there are more or fewer statuses than tasks")
        self.compared = True
        for block in self.blocks.values():
            self.add_head(&block.data.head)
        self.totals_known = True
        return 0

    cdef int count_on_disk(self, long long number, const Head* head) except -1:
        """Add a block on disk to the totals, unless that block is in memory. Returns how many tasks it has."""
        if head.present and number not in self.blocks:
            self.add_head(head)
        return head.present

    cdef int add_head(self, const Head* head) except -1:
        self.totals[0] += head.present
        self.totals[1] += head.done
        self.totals[2] += head.aborted
        self.totals[3] += head.tried
        return 0

    cdef list changed(self, set only):
        """Return the numbers of the changed blocks, in order. With ``only``, return only the blocks of these seqs."""
        if only is None:
            return sorted(self.differing)
        return sorted({seq // TASKS_PER_BLOCK for seq in only if seq >= 0 and seq // TASKS_PER_BLOCK in self.differing})

    cdef int write(self, object txn, set only, set skip) except -1:
        """Write the entries of the changed blocks: all entries except ``skip``, or only the entries ``only``.

        An omitted entry stays as it is on disk, because its value could not be stored or is written later.
        """
        cdef Block block, target
        cdef long long number
        cdef int slot
        cdef list items = []
        cdef set left_out = {seq // TASKS_PER_BLOCK for seq in skip}
        cdef StatusSummary summary = begin_writing(self.store, txn)
        status = self.store.status
        # The write-ahead log takes only the statuses that differ, and LMDB takes whole blocks.
        cdef LoggedTransaction logged = as_logged(txn)
        if self.store.images is None and self.differing:
            txn.delete(SUMMARY_KEY, db=self.store.meta)
        for number in self.changed(only):
            target = block = self.differing[number]
            if only is not None or number in left_out:
                target = self.read(txn, number)
                for slot in range(TASKS_PER_BLOCK):
                    if is_chosen(number * TASKS_PER_BLOCK + slot, only, skip):
                        add_to_head(&target.data.head, target.data.entry[slot], -1)
                        target.data.entry[slot] = block.data.entry[slot]
                        add_to_head(&target.data.head, target.data.entry[slot], 1)
            if self.store.images is not None:
                self.record_before_images(txn, number, target)
            if summary is not None:
                summary.stage(number, &target.data.head)
            if target.data.head.present == 0:
                txn.delete(pack(number), db=status)
            elif logged is not None:
                items.append((pack(number), block.changes(target)))
            else:
                items.append((pack(number), PyBytes_FromStringAndSize(<const char*>&target.data, sizeof(Layout))))
        if items:
            if logged is not None:
                logged.patch_statuses(items)
            else:
                txn.cursor(status).putmulti(items)
            self.store.wrote = True
        return 0

    cdef int record_before_images(self, object txn, long long number, Block block) except -1:
        """Record the before-images of statuses that are about to change, and delete the claims that end.

        ``before_images`` describes the images.
        """
        cdef Block before = self.read(txn, number)
        cdef uint32_t old
        cdef long long seq
        cdef int slot
        for slot in range(TASKS_PER_BLOCK):
            old = before.data.entry[slot]
            if old != block.data.entry[slot]:
                seq = number * TASKS_PER_BLOCK + slot
                if old & PRESENT:
                    self.store.images.note_status(seq, old)
                else:
                    self.store.images.note_added(seq)
                if old & ~block.data.entry[slot] & CLAIMED:
                    txn.delete(claim_key(seq), db=self.store.claims)
        return 0

    cdef int written(self, set only, set skip) except -1:
        """Mark the entries that write() wrote as equal to the disk, because they are committed."""
        cdef Block block
        cdef int slot
        cdef long long number
        cdef bint whole = only is None and not skip
        if self.store.summary is not None:
            (<StatusSummary>self.store.summary).publish_staged()
        if whole:
            for block in self.differing.values():
                block.mark_all_clean()
            self.differing = {}
            self.touched = 0
        for number in self.changed(only):
            block = self.differing[number]
            for slot in range(TASKS_PER_BLOCK):
                if block.touched[slot] and is_chosen(number * TASKS_PER_BLOCK + slot, only, skip):
                    self.touched -= block.touched[slot] == 1
                    block.mark_clean(slot)
            if block.touched_count == 0:
                del self.differing[number]
        if len(self.blocks) > KEPT:
            self.trim()
        return 0

    cdef int trim(self) except -1:
        """Drop the unchanged blocks."""
        self.blocks = dict(self.differing)
        self.room = max(KEPT, 2 * len(self.blocks))
        self.last_number = -1
        return 0

    cdef int forget(self) except -1:
        """Drop all blocks, changed ones included."""
        self.version += 1
        self.blocks = {}
        self.differing = {}
        self.last_number = -1
        self.touched = 0
        self.totals_known = False
        return 0

    cdef dict changes(self):
        """Return a dict of the dirty entries for which no cache entry counts. Its keys are seqs."""
        return {seq: self.get(seq) for seq in self.touched_seqs()}

    cdef bint differs(self) except -1:
        """Return whether a sync has statuses to write."""
        return len(self.differing) > 0

    cdef int check(self) except -1:
        """Raise AssertionError if the blocks in memory contradict themselves."""
        cdef Block block
        cdef int slot
        cdef Py_ssize_t alone = 0
        for block in self.blocks.values():
            alone += block.check()
        if self.differing != {number: value for number, value in self.blocks.items() if (<Block>value).touched_count}:
            raise AssertionError("the list of blocks that differ from the disk is wrong")
        if alone != self.touched:
            raise AssertionError("the count of dirty statuses is wrong")
        if self.totals_known:
            kept = [self.totals[slot] for slot in range(4)]
            self.totals_known = False
            self.count()
            if kept != [self.totals[slot] for slot in range(4)]:
                raise AssertionError("the running totals are wrong")
        return 0

    cdef list touched_seqs(self):
        """Return the seqs whose status is dirty and for which no cache entry counts."""
        cdef Block block
        cdef int slot
        cdef list seqs = []
        for number, value in sorted(self.differing.items()):
            block = value
            seqs.extend([number * TASKS_PER_BLOCK + slot for slot in range(TASKS_PER_BLOCK)
                         if block.touched[slot] == 1])
        return seqs
