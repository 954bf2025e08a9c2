"""Taking items from an end of a store costs the same, however many were deleted there before."""

from __future__ import annotations

import contextlib
import itertools
import struct

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastypy_fast import SharedPOD, SharedTracker
from tastypy_fast._core.deleted_runs import set_shortest
from tastypy_fast._core.memtable import Memtable, MergedCursor
from tests.support.contract import numbered
from tests.support.stores import logging

COUNT = 800
# An iterator begins with a chunk of 16 records. It steps over fewer than 33 deleted ones before these are a run.
MOST_STEPS = 60

BOTH_ENDS = pytest.mark.parametrize("last", [True, False], ids=["last", "first"])


@pytest.fixture
def short_runs():
    """Even two deleted records are a run."""
    before = set_shortest(1)
    yield
    set_shortest(before)


def steps_of(kit, store):
    """How many records the iterators of a store have read for writers."""
    return (store._write_handle() if kit.is_shared else store)._open_cache.steps


def first_key(store, last):
    return next(reversed(store) if last else iter(store), None)


@contextlib.contextmanager
def situation(kit, name):
    """A store with COUNT keys whose deletions stay in memory, go to the disk or are a part of a transaction."""
    if name == "synced":
        yield numbered(kit, COUNT, True, sync_at=100)
        return
    store = kit.open()
    store.hold()
    store.update(kit.pairs({number: number for number in range(COUNT)}))
    if name != "new":
        store.sync()
    if name == "block":
        with store.locked():
            yield store
    elif name == "savepoint" and kit.is_shared:
        with store.locked(), store.transaction():
            yield store
    else:
        yield store


@pytest.mark.all_classes
@pytest.mark.with_log("pod", "tracker")
@BOTH_ENDS
@pytest.mark.parametrize("name", ["synced", "held", "new", "block", "savepoint"])
def test_popitem_until_empty_reads_few_records_for_each_item(kit, name, last):
    with situation(kit, name) as store:
        before = steps_of(kit, store)
        popped = [store.popitem(last)[0] for _ in range(COUNT)]
        assert popped == (list(range(COUNT))[::-1] if last else list(range(COUNT)))
        assert steps_of(kit, store) - before < MOST_STEPS * COUNT
        assert len(store) == 0
        assert first_key(store, last) is None


@pytest.mark.all_classes
@BOTH_ENDS
def test_looking_at_an_end_after_deletions_reads_few_records(kit, last):
    with situation(kit, "block") as store:
        keys = store.keys()[::-1] if last else store.keys()
        for key in keys[:-1]:
            del store[key]
        # The first iterator crosses all that were deleted.
        assert first_key(store, last) == keys[-1]
        before = steps_of(kit, store)
        assert [first_key(store, last) for _ in range(20)] == [keys[-1]] * 20
        assert list(store) == list(reversed(store)) == [keys[-1]]
        assert steps_of(kit, store) - before < MOST_STEPS * 22


@pytest.mark.all_classes
@BOTH_ENDS
def test_popitem_between_insertions_reads_few_records(kit, last):
    with situation(kit, "block") as store:
        before = steps_of(kit, store)
        model = dict.fromkeys(range(COUNT))
        for number in range(COUNT - 1):
            store[COUNT + number] = kit.value(number)
            model[COUNT + number] = None
            for _ in range(2):
                key = store.popitem(last)[0]
                assert key == (next(reversed(model)) if last else next(iter(model)))
                del model[key]
        assert store.keys() == list(model)
        assert steps_of(kit, store) - before < 2 * MOST_STEPS * COUNT


@pytest.mark.all_classes
def test_new_keys_that_were_deleted_are_not_read_again(kit):
    store = kit.open()
    with store.locked():
        store.update(kit.pairs({number: number for number in range(COUNT)}))
        for number in range(500, COUNT - 500):
            del store[number]
        before = steps_of(kit, store)
        assert store.popitem()[0] == COUNT - 1
        assert store.popitem(last=False)[0] == 0
        assert steps_of(kit, store) - before < 2 * MOST_STEPS


@pytest.mark.all_classes
@pytest.mark.with_log("pod", "tracker")
@BOTH_ENDS
def test_deletions_that_are_undone_are_read_again(kit, last, short_runs):
    store = numbered(kit, 100, True)
    expected = store.keys()[::-1] if last else store.keys()
    store.hold()
    for _ in range(2):
        assert [store.popitem(last)[0] for _ in range(40)] == expected[:40]
        store.update(kit.pairs({expected[0]: "again"}))
        assert first_key(store, last) == expected[0 if last else 40]
        store.revert()
        assert store.keys() == list(range(100))
        assert first_key(store, last) == expected[0]


@pytest.mark.parametrize("any_class", [SharedPOD, SharedTracker], ids=["shared_pod", "shared_tracker"])
@BOTH_ENDS
def test_savepoint_that_is_rolled_back_restores_the_end(kit, last, short_runs):
    store = numbered(kit, 100, True)
    expected = store.keys()[::-1] if last else store.keys()
    with store.locked():
        assert [store.popitem(last)[0] for _ in range(10)] == expected[:10]
        with contextlib.suppress(ZeroDivisionError), store.transaction():
            assert [store.popitem(last)[0] for _ in range(10)] == expected[10:20]
            raise ZeroDivisionError
        assert [store.popitem(last)[0] for _ in range(10)] == expected[10:20]
    with contextlib.suppress(ZeroDivisionError), store.transaction():
        assert [store.popitem(last)[0] for _ in range(10)] == expected[20:30]
        raise ZeroDivisionError
    assert first_key(store, last) == expected[20]


def test_synced_key_between_deleted_records_of_another_memory_is_found(private_kit, short_runs):
    """With ``clone=False``, a new key may precede records that the other memory has written."""
    store = numbered(private_kit, 5, True, clone=False)
    other = private_kit.open(clone=False)
    store.hold()
    store["late"] = private_kit.value(1)
    assert len(store) == 6
    other.update(private_kit.pairs({"x": 1, "y": 2}))
    other.sync()
    for key in (3, 4, "x", "y"):
        del store[key]
    assert store.keys() == [0, 1, 2, "late"]
    store.sync_key("late")
    assert list(reversed(store)) == ["late", 2, 1, 0]
    assert store.keys() == [0, 1, 2, "late"]
    store.sync()
    assert other.keys() == [0, 1, 2, "late"]


def test_key_that_another_memory_syncs_between_deleted_records_is_found(private_kit, short_runs):
    store = numbered(private_kit, 5, True, clone=False)
    other = private_kit.open(clone=False)
    other["late"] = private_kit.value(1)
    assert len(other) == 6
    store.update(private_kit.pairs({"x": 1, "y": 2}))
    store.sync()
    store.hold()
    for key in (3, 4, "x", "y"):
        del store[key]
    assert store.keys() == [0, 1, 2]
    other.sync()
    assert store.keys() == [0, 1, 2, "late"]
    assert list(reversed(store)) == ["late", 2, 1, 0]


@pytest.mark.parametrize("checkpoint_at", [1, 7, 1000])
def test_new_key_before_records_that_the_log_has_deleted_is_saved(private_kit, short_runs, checkpoint_at):
    """LMDB appends only after its own last record, which the log may have deleted."""
    with logging(checkpoint_at):
        store = numbered(private_kit, 5, True)
        other = private_kit.open(clone=False)
        store["late"] = private_kit.value(1)
        assert len(store) == 6
        other.update(private_kit.pairs({"x": 1, "y": 2}))
        other.sync()
        for key in (4, "x", "y"):
            del other[key]
        other.sync()
        assert other.keys() == list(reversed(other))[::-1] == [0, 1, 2, 3]
        store.sync()
        assert store.keys() == other.keys() == list(reversed(other))[::-1] == [0, 1, 2, 3, "late"]
        assert private_kit.reopened(store).keys() == [0, 1, 2, 3, "late"]


# The memtable


def packed(number):
    return struct.pack("=q", number)


class CountingCursor:
    """A cursor of LMDB that counts its steps."""

    def __init__(self, cursor):
        self.cursor = cursor
        self.steps = 0

    def __getattr__(self, name):
        self.steps += 1
        return getattr(self.cursor, name)

    def iternext(self):
        return self.counted(self.cursor.iternext())

    def iterprev(self):
        return self.counted(self.cursor.iterprev())

    def counted(self, pairs):
        for pair in pairs:
            self.steps += 1
            yield pair


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """An environment with a database of integer keys."""
    db = lmdb.open(str(tmp_path_factory.mktemp("numbers")), max_dbs=1, map_size=1 << 22)
    db.open_db(b"numbers", integerkey=True)
    yield db
    db.close()


@contextlib.contextmanager
def cursor_over(db, content):
    handle = db.open_db(b"numbers", integerkey=True)
    with db.begin(write=True) as txn:
        txn.drop(handle, delete=False)
        for number in content:
            txn.put(packed(number), b"disk", db=handle)
        yield CountingCursor(txn.cursor(handle))


@BOTH_ENDS
def test_cursor_crosses_keys_that_the_memtable_deletes_once(numbers, last):
    memtable = Memtable(True)
    with cursor_over(numbers, range(COUNT)) as below:
        for number in range(1, COUNT - 1):
            memtable.put(packed(number), None)
        memtable.put(packed(0 if last else COUNT - 1), b"memtable")
        memtable.put(packed(COUNT - 1 if last else 0), None)
        expected = packed(0 if last else COUNT - 1), b"memtable"
        for attempt in range(3):
            cursor = MergedCursor(below, memtable)
            assert cursor.last() if last else cursor.first()
            assert cursor.key() == expected[0]
            assert [*cursor.iterprev()] == [*cursor.iternext()] == [expected]
            assert cursor.set_range(packed(COUNT // 2)) != last
            assert below.steps < (2 * COUNT if attempt == 0 else 100)
            below.steps = 0


@given(
    content=st.sets(st.integers(0, 20)), shortest=st.sampled_from([1, 2]),
    changes=st.lists(st.tuples(st.integers(0, 20), st.sampled_from([None, None, None, b"a"])), max_size=25),
)
def test_reads_between_changes_of_a_memtable_see_all_of_them(numbers, content, shortest, changes):
    before = set_shortest(shortest)
    try:
        memtable, model = Memtable(True), dict.fromkeys(content, b"disk")
        with cursor_over(numbers, content) as below:
            for number, value in itertools.chain(changes, [(0, None)]):
                memtable.put(packed(number), value)
                model[number] = value
                expected = [(packed(key), model[key]) for key in sorted(model) if model[key] is not None]
                cursor = MergedCursor(below, memtable)
                assert list(cursor) == expected
                cursor = MergedCursor(below, memtable)
                assert list(cursor.backwards(None, True)) == expected[::-1]
                assert cursor.last() == bool(expected)
                assert cursor.key() == (expected[-1][0] if expected else b"")
                assert list(cursor.backwards(packed(10), False)) == [
                    pair for pair in expected[::-1] if struct.unpack("=q", pair[0])[0] < 10]
                assert cursor.set_range(packed(10)) == any(struct.unpack("=q", key)[0] >= 10 for key, _ in expected)
    finally:
        set_shortest(before)
