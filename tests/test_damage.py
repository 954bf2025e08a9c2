"""Damaged files: the integrity error, never a crash, never wrong data, and nothing changed by looking at them."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import struct
from contextlib import closing

import lmdb
import pytest
from lmdb.verify import verify

from tastypy_fast import (
    POD,
    NewerFormatError,
    NotAStoreError,
    PersistentOrderedDictIntegrityError,
    StoreNotFoundError,
    Tracker,
)
from tests.children import Child

pytestmark = [pytest.mark.with_log("pod"), pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]

PAGE = 4096
LONG_KEY = "long" * 200
NUMBER = struct.Struct("=q")


def content():
    """What the stores to damage hold. Each value is such that no beginning of its JSON is JSON."""
    for number in range(400):
        yield f"key {number}", {"number": number, "text": "y" * (9000 if number % 100 == 7 else 50)}
    yield LONG_KEY, {"number": 400}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with a sound store of each class."""
    folder = tmp_path_factory.mktemp("sound")
    for cls in (POD, Tracker):
        with cls(folder / cls.__name__) as store:
            for key, value in content():
                store[key] = value
            if cls is Tracker:
                for number in range(0, 399, 3):
                    store.mark_done(f"key {number}")
                    store.increment_tries(f"key {number + 1}")
                store.abort("key 2")
    return folder


@pytest.fixture
def victim(sound, any_class, path):
    shutil.copytree(sound / any_class.__name__, path)
    return path


def files(path):
    # (LMDB keeps its readers in the lock file; it says nothing of the data.)
    return {entry.name: entry.read_bytes() for entry in path.iterdir() if entry.name != "lock.mdb"}


# The file as a whole


def overwrite(first, count, make):
    """Replace a number of pages."""

    def damage(data):
        return data[: first * PAGE] + make(count * PAGE) + data[(first + count) * PAGE :]

    return damage


def truncate(length):
    return lambda data: data[: int(length * len(data)) if isinstance(length, float) else length]


def sqlite_file(data):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("create table t (k, v)")
        connection.executemany("insert into t values (?, ?)", ((number, "x" * 1000) for number in range(100)))
        if hasattr(connection, "serialize"):
            return connection.serialize()
    return b"SQLite format 3\0".ljust(len(data), b"s")


def noise(size):
    return random.Random(size).randbytes(size)


WHOLE_FILE = {
    "zeros over the first page": overwrite(0, 1, bytes),
    "noise over the first page": overwrite(0, 1, noise),
    "zeros over the second page": overwrite(1, 1, bytes),
    "noise over the second page": overwrite(1, 1, noise),
    "zeros over the first pages": overwrite(0, 8, bytes),
    "noise over the first pages": overwrite(0, 8, noise),
    "zeros over all but the meta pages": lambda data: data[: 2 * PAGE].ljust(len(data), b"\0"),
    "noise over all but the meta pages": lambda data: data[: 2 * PAGE] + noise(len(data) - 2 * PAGE),
    "zeros all over": lambda data: bytes(len(data)),
    "truncated to 0": truncate(0),
    "truncated to 1": truncate(1),
    "truncated to 100": truncate(100),
    "truncated to a page": truncate(PAGE),
    "truncated to a page and a bit": truncate(PAGE + 152),
    "truncated to two pages": truncate(2 * PAGE),
    "truncated to half": truncate(0.5),
    "truncated to 90 %": truncate(0.9),
    "without the last page": truncate(-PAGE),
    "JSON": lambda data: b'{"a": 1}\n' * 5000,
    "text": lambda data: b"hello\n",
    "noise": lambda data: noise(len(data)),
    "SQLite": sqlite_file,
    "the meta pages swapped": lambda data: data[PAGE : 2 * PAGE] + data[:PAGE] + data[2 * PAGE :],
    "the first page missing": lambda data: data[PAGE:],
    "twice as large pages": lambda data: data[:40] + struct.pack("=I", 2 * PAGE) + data[44:],
}


def open_and_read(pipe, cls, path, mode):
    """Send the error of opening, or what reading finds."""
    try:
        with cls(path, mode=mode) as store:
            pipe.send((len(store), store.keys(), [store[key] for key in store]))
    except Exception as error:
        pipe.send(error)


@pytest.mark.parametrize("mode", ["w", "r"])
@pytest.mark.parametrize("damage", WHOLE_FILE)
def test_a_damaged_file_is_refused_and_left_alone(any_class, victim, damage, mode):
    data = victim / "data.mdb"
    data.write_bytes(WHOLE_FILE[damage](data.read_bytes()))
    before = files(victim)
    with Child(open_and_read, any_class, victim, mode) as child:
        outcome = child.receive_all()
        assert child.wait() == 0
    assert len(outcome) == 1
    assert isinstance(outcome[0], PersistentOrderedDictIntegrityError), outcome[0]
    assert str(victim) in str(outcome[0])
    assert files(victim) == before


@pytest.mark.parametrize("mode", ["w", "r"])
def test_a_missing_data_file_is_not_a_new_store(any_class, victim, mode):
    (victim / "data.mdb").unlink()
    with pytest.raises((PersistentOrderedDictIntegrityError, StoreNotFoundError)):
        any_class(victim, mode=mode)
    assert not (victim / "data.mdb").exists()


@pytest.mark.parametrize("appended", [b"\0" * 3 * PAGE, b"something"])
def test_what_was_appended_is_ignored(any_class, victim, appended):
    with open(victim / "data.mdb", "ab") as file:
        file.write(appended)
    with any_class(victim) as store:
        assert store.keys() == [key for key, _ in content()]
        store["new"] = {"number": -1}
    with any_class(victim) as store:
        store._check()
        assert store["new"]["number"] == -1


def test_a_missing_lock_file_is_made_again(any_class, victim):
    for name in os.listdir(victim):
        if name != "data.mdb":
            (victim / name).unlink()
    with any_class(victim) as store:
        store._check()
        assert len(store) == 401


@pytest.mark.parametrize("size", [200_000, 3_000_000])
def test_a_sound_file_may_be_shorter_than_its_last_page(any_class, victim, size):
    """Pages that are taken and given back in one transaction are never written."""
    number = NUMBER.pack(10**6)
    with lmdb.open(str(victim), max_dbs=8, map_size=1 << 28) as db:
        values = db.open_db(b"values", create=False, integerkey=True)
        # First some free pages in the middle, which the pages that are written at last will take.
        for step in ("put", "delete", "put", "delete"):
            with db.begin(write=True) as txn:
                txn.put(number, bytes(50_000), db=values) if step == "put" else txn.delete(number, db=values)
        with db.begin(write=True) as txn:
            txn.put(number, bytes(size), db=values)
            txn.delete(number, db=values)
        pages = db.info()["last_pgno"] + 1
    assert (victim / "data.mdb").stat().st_size < pages * PAGE
    for mode in ("r", "w"):
        with any_class(victim, mode=mode) as store:
            store._check()
            assert store.keys() == [key for key, _ in content()]
    with any_class(victim) as store:
        store["new"] = {"text": "x" * size}
        store.sync()
        store._check()
    assert not verify(victim)


# Inside: what the engine cannot know


class Inside:
    """The databases of a store, for writing into them what does not belong there."""

    def __init__(self, path):
        self.db = lmdb.open(str(path), max_dbs=8, map_size=1 << 28)
        with self.db.begin() as txn:
            names = [bytes(name) for name, _ in txn.cursor()]
        for name in (b"values", b"order", b"status", b"meta"):
            integers = name in (b"values", b"status")
            handle = self.db.open_db(name, create=False, integerkey=integers) if name in names else None
            setattr(self, name.decode(), handle)

    def __enter__(self):
        self.txn = self.db.begin(write=True)
        return self

    def __exit__(self, *exception):
        self.txn.commit()
        self.db.close()

    def index_of(self, number):
        """The key in the index that names a record."""
        return next(key for key, value in self.txn.cursor(self.order) if value == NUMBER.pack(number))

    def record(self, number):
        return self.txn.get(NUMBER.pack(number), db=self.values)

    def put(self, number, record):
        self.txn.put(NUMBER.pack(number), record, db=self.values)


def change_record(make):
    def damage(inside):
        inside.put(5, make(inside.record(5)))

    return damage


def change_meta(name, value):
    def damage(inside):
        if value is None:
            inside.txn.delete(name, db=inside.meta)
        else:
            inside.txn.put(name, value, db=inside.meta)

    return damage


def dangling_index(inside):
    inside.txn.delete(NUMBER.pack(5), db=inside.values)


def record_without_index(inside):
    inside.txn.delete(inside.index_of(5), db=inside.order)


def crossed_index(inside):
    inside.txn.put(inside.index_of(5), NUMBER.pack(6), db=inside.order)


def crossed_digest(inside):
    """The long key is in the index by its digest, which names the record of another key."""
    inside.txn.put(inside.index_of(400), NUMBER.pack(6), db=inside.order)


def index_entry(value):
    return lambda inside: inside.txn.put(inside.index_of(5), value, db=inside.order)


def change_block(make):
    def damage(inside):
        block = inside.txn.get(NUMBER.pack(0), db=inside.status)
        changed = make(block)
        if changed is None:
            inside.txn.delete(NUMBER.pack(0), db=inside.status)
        else:
            inside.txn.put(NUMBER.pack(0), changed, db=inside.status)

    return damage


def set_status(slot, entry):
    """A status as it would be written, with the head that belongs to it."""

    def make(block):
        head, entries = list(struct.unpack("=8H", block[:16])), list(struct.unpack("=500I", block[16:]))
        for sign, present in ((-1, entries[slot]), (1, entry)):
            if present & 1:
                head[0] += sign
                head[4] += sign * (not present & 6)
                assert not present & 6
                assert present >> 4 == 0
        entries[slot] = entry
        return struct.pack("=8H500I", *head, *entries)

    return change_block(make)


def drop(name):
    return lambda inside: inside.txn.drop(getattr(inside, name), delete=True)


# Which damage, and the ways of reading that have to notice it (where opening does not).
INSIDE = {
    "JSON that does not parse": (change_record(lambda raw: raw[:-1] + b"!"), {"get", "items", "values"}),
    "JSON that is not UTF-8": (change_record(lambda raw: raw[:-4] + b'\xff\xff"}'), {"get", "items", "values"}),
    "no payload": (change_record(lambda raw: raw[: raw.index(b"{")]), {"get", "items", "values"}),
    "a key that does not parse": (change_record(lambda raw: raw[:2] + b"\xff" + raw[3:]), {"get", "keys", "items"}),
    "unknown format of a record": (change_record(lambda raw: b"\x7f" + raw[1:]), {"get", "keys", "items", "values"}),
    "said to be compressed": (change_record(lambda raw: b"\x11" + raw[1:]), {"get", "items", "values"}),
    "an empty record": (change_record(lambda raw: b""), {"get", "keys", "items", "values"}),
    "a record of one byte": (change_record(lambda raw: raw[:1]), {"get", "keys", "items", "values"}),
    "an endless length of key": (change_record(lambda raw: b"\x01" + b"\xff" * 20), {"get", "keys", "items", "values"}),
    "an index entry without record": (dangling_index, {"get"}),
    "a record without index entry": (record_without_index, {"get"}),
    "an index entry of another key's record": (crossed_index, {"get"}),
    "a digest of another key's record": (crossed_digest, {"get", "in"}),
    "an index entry cut short": (index_entry(b"abc"), {"get", "in"}),
    "an index entry out of range": (index_entry(NUMBER.pack(-3)), {"get", "in"}),
    "an index entry of a number never given": (index_entry(NUMBER.pack(10**9)), {"get"}),
    "a record out of range": (lambda inside: inside.put(-3, inside.record(5)), {"keys"}),
    "no format": (change_meta(b"format", None), {"open"}),
    "a format that does not parse": (change_meta(b"format", b"\xff"), {"open"}),
    "no kind": (change_meta(b"kind", None), {"open"}),
    "an unknown kind": (change_meta(b"kind", b"?"), {"open"}),
    "a next number cut short": (change_meta(b"next", b"abc"), {"open"}),
    "no databases": (drop("meta"), {"open"}),
    "no values": (drop("values"), {"open"}),
    "no index": (drop("order"), {"open"}),
}
INSIDE_TRACKER = {
    "a status block cut short": (change_block(lambda raw: raw[:100]), {"get", "done", "todo", "try", "num_done"}),
    "an empty status block": (change_block(lambda raw: b""), {"get", "done", "todo", "try", "num_done"}),
    "a status block too long": (change_block(lambda raw: raw + b"\0"), {"get", "done", "todo", "try", "num_done"}),
    "no status block": (change_block(lambda raw: None), {"get", "done", "todo", "try", "num_done"}),
    "a status without record": (set_status(450, 1), {"todo", "try", "num_done"}),
    "a record without status": (set_status(5, 0), {"get", "done", "todo", "try", "num_done"}),
    "data that is no dict": (
        change_record(lambda raw: raw[: raw.index(b"{")] + b"[1]"),
        {"get", "items", "values", "todo items"},
    ),
    "no statuses": (drop("status"), {"open"}),
}

CASES = [(cls, damage) for cls in (POD, Tracker) for damage in INSIDE]
CASES += [(Tracker, damage) for damage in INSIDE_TRACKER]

# What only a second look at every record could notice: these answer with the status of the task whose record it is.
LIMITS = {"an index entry of another key's record": {"done", "tries", "should do"}}

# Those that are damaged, and some that are not.
SINGLE = ["key 5", LONG_KEY, "key 6", "key 0", "key 399"]
READS = {
    "get": lambda store: [store.get(key) for key in SINGLE],
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
    """Send how each way of reading has ended: its result or the error. Each with an instance of its own."""
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
    """What reading finds in a sound store of a class."""
    return {cls: reading(cls, sound / cls.__name__, "w") for cls in (POD, Tracker)}


# (with and without the heads of the blocks of statuses in one piece, which a tracker that was closed has)
@pytest.mark.parametrize("mode", ["w", "r"])
@pytest.mark.parametrize(
    ("any_class", "damage", "heads"),
    [(cls, damage, heads) for cls, damage in CASES for heads in ([True, False] if cls is Tracker else [False])],
)
def test_damage_inside_is_right_or_refused(right, any_class, victim, damage, mode, heads):
    """Each way of reading gives what it gave before the damage, or the integrity error."""
    change, noticed_by = {**INSIDE, **INSIDE_TRACKER}[damage]
    with Inside(victim) as inside:
        if heads:
            # What is counted stands in them, and is right.
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
    # (writing an owner's name is all that opening for writing does)
    assert files(victim)["data.mdb"] == before["data.mdb"]


@pytest.mark.parametrize(("any_class", "damage"), CASES)
def test_check_finds_damage_inside(any_class, victim, damage):
    with Inside(victim) as inside:
        {**INSIDE, **INSIDE_TRACKER}[damage][0](inside)
    with pytest.raises((PersistentOrderedDictIntegrityError, NotAStoreError)), any_class(victim) as store:
        store._check()


@pytest.mark.parametrize("length", range(0, 60, 6))
def test_a_record_cut_anywhere_is_refused(any_class, victim, length):
    with Inside(victim) as inside:
        assert len(inside.record(5)) > 60
        inside.put(5, inside.record(5)[:length])
    outcome = reading(any_class, victim, "w")
    assert isinstance(outcome["get"], PersistentOrderedDictIntegrityError)
    assert isinstance(outcome["items"], PersistentOrderedDictIntegrityError)


@pytest.mark.parametrize("mode", ["w", "r"])
def test_a_newer_format_is_refused_and_left_alone(any_class, victim, mode):
    with Inside(victim) as inside:
        change_meta(b"format", b"99")(inside)
    before = files(victim)
    with pytest.raises(NewerFormatError, match="format 99"):
        any_class(victim, mode=mode)
    assert files(victim)["data.mdb"] == before["data.mdb"]


def test_an_instance_that_met_damage_goes_on(any_class, victim):
    """The rest is read and written; what is damaged can be replaced or deleted."""
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
    """Flip a bit in anything that a store keeps; where the engine's own pages are is not touched."""
    databases = [database for database in (inside.values, inside.order, inside.status, inside.meta) if database]
    database = rng.choice(databases)
    cursor = inside.txn.cursor(database)
    cursor.first()
    for _ in range(rng.randrange(inside.txn.stat(database)["entries"])):
        cursor.next()
    key, value = cursor.item()
    bits = bytearray(value)
    # Mostly near the beginning, where the heads are.
    position = rng.randrange(min(len(bits), rng.choice((4, 20, 5000))))
    bits[position] ^= 1 << rng.randrange(8)
    inside.txn.put(key, bytes(bits), db=database)


def test_a_flipped_bit_inside_is_data_or_an_integrity_error(any_class, sound, path, seed):
    """Not all of these can be found (a digit is as good as another); none raises anything else or ends the process."""
    rng = random.Random(seed)
    refused = 0
    for number in range(60):
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
