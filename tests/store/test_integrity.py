"""Damage inside records: reads return the right data or an integrity error, and never crash."""

from __future__ import annotations

import random
import shutil

import pytest

from tastypy_fast import (
    POD,
    NewerFormatError,
    NotAStoreError,
    PersistentOrderedDictIntegrityError,
    Tracker,
)
from tests.support.children import Child
from tests.support.damage import INSIDE, INSIDE_TRACKER, LONG_KEY, Inside, change_meta, change_record, files

pytestmark = [pytest.mark.with_log("pod"), pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]

CASES = [(cls, damage) for cls in (POD, Tracker) for damage in INSIDE]
CASES += [(Tracker, damage) for damage in INSIDE_TRACKER]

# Only a second check of every record could detect these. They return the status of the task whose record it is.
LIMITS = {"an index entry of another key's record": {"done", "tries", "should do"}}

# The damaged keys, and some undamaged ones.
SINGLE = ["key 5", LONG_KEY, "key 6", "key 0", "key 399"]
READS = {
    "get": lambda store: [store.get(key) for key in SINGLE],
    "get_many": lambda store: list(store.get_many(SINGLE)),
    "in": lambda store: [key in store for key in SINGLE],
    "len": len,
    "keys": list,
    "reversed": lambda store: list(reversed(store)),
    "values": lambda store: store.values(),
    "items": lambda store: store.items(),
}
TRACKER_READS = {
    "done": lambda store: [store.done(key) for key in SINGLE],
    "tries": lambda store: [store.tries(key) for key in SINGLE],
    "should do": lambda store: [store.should_do(key) for key in SINGLE],
    "todo": lambda store: list(store.todo_keys()),
    "todo items": lambda store: list(store.todo_items()),
    "aborted": lambda store: list(store.aborted_keys()),
    "num_done": lambda store: (store.num_done(), store.fraction_done()),
    "num_tried": lambda store: store.num_tried(),
    "num_aborted": lambda store: store.num_aborted(),
    "try": lambda store: list(store.try_keys()),
}


def read_everything(pipe, cls, path, mode):
    """Send the outcome of each way to read, its result or its error, each with a separate instance."""
    reads = {**READS, **(TRACKER_READS if cls is Tracker else {})}
    if mode == "r":
        reads.pop("try", None)
    for name, read in reads.items():
        try:
            with cls(path, mode=mode) as store:
                try:
                    pipe.send((name, read(store)))
                except Exception as error:
                    pipe.send((name, error))
                store.revert()
        except Exception as error:
            pipe.send(("open", error))
            return


def reading(cls, path, mode):
    with Child(read_everything, cls, path, mode) as child:
        outcome = dict(child.receive_all())
        assert child.wait() == 0, f"the last way of reading that ended was {list(outcome)[-1:]}"
    return outcome


@pytest.fixture(scope="module")
def right(sound):
    """The results of reading an undamaged store of a class."""
    return {cls: reading(cls, sound / cls.__name__, "w") for cls in (POD, Tracker)}


# A closed tracker may have the summary of its block headers, or not. A reader opens both in the same way, and a dict as
# it opens a tracker.
@pytest.mark.parametrize(("any_class", "damage", "heads", "mode"), [
    pytest.param(cls, damage, heads, mode, marks=pytest.mark.storm if mode == "r" and not heads else ())
    for cls, damage in CASES for heads in ([True, False] if cls is Tracker else [False]) for mode in ("w", "r")
])
def test_damaged_records_give_the_right_value_or_an_integrity_error(right, any_class, victim, damage, mode, heads):
    """Each read gives the same result as before the damage, or the integrity error."""
    change, noticed_by = {**INSIDE, **INSIDE_TRACKER}[damage]
    with Inside(victim) as inside:
        if heads:
            # The headers contain the counts, which are right.
            assert inside.txn.get(b"heads", db=inside.meta)
            noticed_by = noticed_by - {"num_done"}
        else:
            inside.txn.delete(b"heads", db=inside.meta)
        change(inside)
    before = files(victim)
    outcome = reading(any_class, victim, mode)
    refused = {name for name, result in outcome.items() if isinstance(result, PersistentOrderedDictIntegrityError)}
    if damage in ("no databases", "no values", "no index") and isinstance(outcome.get("open"), NotAStoreError):
        refused.add("open")
    if any_class is not Tracker or mode == "r":
        noticed_by = noticed_by - {"try"}
    missed = set() if "open" in refused else noticed_by - refused
    unnoticed = refused | LIMITS.get(damage, set())
    wrong = {
        name: result
        for name, result in outcome.items()
        if name not in unnoticed and result != right[any_class].get(name)
    }
    assert refused
    assert (missed, {name: f"{result!r:.500}" for name, result in wrong.items()}) == (set(), {})
    for name in refused:
        assert str(victim) in str(outcome[name])
    if "get" in refused:
        assert str(outcome["get_many"]) == str(outcome["get"])
    # Opening for writing only writes the name of the owner.
    assert files(victim)["data.mdb"] == before["data.mdb"]


@pytest.mark.parametrize(("any_class", "damage"), CASES)
def test_check_finds_damaged_records(any_class, victim, damage):
    with Inside(victim) as inside:
        {**INSIDE, **INSIDE_TRACKER}[damage][0](inside)
    with pytest.raises((PersistentOrderedDictIntegrityError, NotAStoreError)), any_class(victim) as store:
        store._check()


@pytest.mark.parametrize("length", range(0, 60, 6))
def test_record_truncated_at_any_position_is_refused(any_class, victim, length):
    with Inside(victim) as inside:
        assert len(inside.record(5)) > 60
        inside.put(5, inside.record(5)[:length])
    outcome = reading(any_class, victim, "w")
    assert isinstance(outcome["get"], PersistentOrderedDictIntegrityError)
    assert isinstance(outcome["items"], PersistentOrderedDictIntegrityError)


@pytest.mark.parametrize("mode", ["w", "r"])
def test_newer_format_is_refused_and_not_changed(any_class, victim, mode):
    with Inside(victim) as inside:
        change_meta(b"format", b"99")(inside)
    before = files(victim)
    with pytest.raises(NewerFormatError, match="format 99"):
        any_class(victim, mode=mode)
    assert files(victim)["data.mdb"] == before["data.mdb"]


def test_instance_is_usable_after_an_integrity_error(any_class, victim):
    """The rest can be read and written. Damaged keys can be assigned or deleted."""
    with Inside(victim) as inside:
        change_record(lambda raw: raw[:-1] + b"!")(inside)
    with any_class(victim) as store:
        for _ in range(2):
            with pytest.raises(PersistentOrderedDictIntegrityError, match="key 5"):
                store["key 5"]
        store["key 6"]["number"] = "six"
        store["new"] = {}
        store.sync()
        store["key 5"] = {"number": 5}
    with any_class(victim) as store:
        store._check()
        assert [store[key].get("number") for key in ("key 5", "key 6", "new")] == [5, "six", None]


def flip_somewhere(inside, rng):
    """Flip a bit in any record of a store. LMDB's own pages are not changed."""
    databases = [database for database in (inside.values, inside.order, inside.status, inside.meta) if database]
    database = rng.choice(databases)
    cursor = inside.txn.cursor(database)
    cursor.first()
    for _ in range(rng.randrange(inside.txn.stat(database)["entries"])):
        cursor.next()
    key, value = cursor.item()
    bits = bytearray(value)
    # Most positions are near the start, where the headers are.
    position = rng.randrange(min(len(bits), rng.choice((4, 20, 5000))))
    bits[position] ^= 1 << rng.randrange(8)
    inside.txn.put(key, bytes(bits), db=database)


@pytest.mark.parametrize("count", [25, pytest.param(300, marks=pytest.mark.storm)])
def test_flipped_bit_in_a_record_gives_data_or_an_integrity_error(any_class, sound, path, seed, count):
    """Some of these cannot be detected, such as a changed digit. None raises another error or ends the process."""
    rng = random.Random(seed)
    refused = 0
    for number in range(count):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(sound / any_class.__name__, path)
        with Inside(path) as inside:
            flip_somewhere(inside, rng)
        outcome = reading(any_class, path, "w")
        errors = [result for result in outcome.values() if isinstance(result, Exception)]
        refused += bool(errors)
        allowed = (PersistentOrderedDictIntegrityError, NewerFormatError, TypeError)
        assert all(isinstance(error, allowed) for error in errors), (seed, number, errors)
    assert refused


def test_error_is_not_its_own_cause(victim, any_class):
    """Other packages follow causes without an end when they pickle an error."""
    with Inside(victim) as inside:
        INSIDE["no format"][0](inside)
    with pytest.raises(PersistentOrderedDictIntegrityError) as caught:
        any_class(victim)
    causes = []
    error = caught.value
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__
    assert error is None
