"""Copies, space given back, damage found and what is left brought out of it, for stores of all four classes."""

from __future__ import annotations

import itertools
import os
import random
import resource
import shutil
import signal
import struct
import time
import tracemalloc
from contextlib import ExitStack

import lmdb
import pytest

from tastypy_fast import (
    POD,
    DiskFullError,
    NewerFormatError,
    NotAStoreError,
    PersistentOrderedDictIntegrityError,
    SharedPOD,
    SharedTracker,
    StorageError,
    StoreInUseError,
    StoreNotFoundError,
    Tracker,
    maintenance,
)
from tastypy_fast._lmdb import engine
from tastypy_fast._lmdb.data_file import find_databases
from tastypy_fast._lmdb.file_locks import EngineLock
from tastypy_fast.maintenance import _compact, _verify
from tastypy_fast.maintenance._repair import repair_store
from tastypy_fast.maintenance._verify import verify_store
from tests.children import Child, outcome_of
from tests.conftest import CLASSES, is_tracker, logging, value_for
from tests.test_damage import (
    INSIDE,
    INSIDE_TRACKER,
    LONG_KEY,
    NUMBER,
    PAGE,
    WHOLE_FILE,
    Inside,
    change_block,
    change_meta,
    content,
    noise,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

HOSTILE = ["", "tab\tand\nline", "\udc80", 0, -1, 2**70, -(2**70), (), ("a", (1, ("",))), "\0", "x" * 5000,
           ("y" * 600,)]
MOST = 4000
PRIVATE = {SharedPOD: POD, SharedTracker: Tracker}


def fill(store):
    for key, value in content():
        store[key] = value
    for number, key in enumerate(HOSTILE):
        store[key] = {"hostile": number}
    if isinstance(store, (Tracker, SharedTracker)):
        for number in range(0, 399, 3):
            store.mark_done(f"key {number}")
            store.increment_tries(f"key {number + 1}")
        store.abort("key 2")
    # What was taken out before leaves its number, at the end too.
    store["deleted"] = {"x": 1}
    del store["deleted"]


def state(store):
    """Everything that a store knows, in order."""
    if isinstance(store, (Tracker, SharedTracker)):
        return [(key, plain(value), store.done(key), store.aborted(key), store.tries(key))
                for key, value in store.items()]
    return [(key, value) for key, value in store.items()]


def plain(value):
    return {name: part for name, part in value.items() if name not in ("_done", "_aborted", "_tries")}


def state_of(cls, path):
    with cls(path) as store:
        store._check()
        return state(store)


# (each part of the code that differs has one of them in the ordinary run)
ORDINARY = ("pod", "shared_tracker")


@pytest.fixture(params=[
    pytest.param(cls, id=name, marks=() if name in ORDINARY else pytest.mark.storm) for name, cls in CLASSES.items()
])
def cls(request):
    return request.param


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A folder with a sound store of each class, and what is in it."""
    folder = tmp_path_factory.mktemp("sound")
    found = {}
    for one in CLASSES.values():
        with one(folder / one.__name__) as store:
            fill(store)
        found[one] = folder / one.__name__, state_of(PRIVATE.get(one, one), folder / one.__name__)
    return found


@pytest.fixture
def victim(stores, cls, path):
    shutil.copytree(stores[cls][0], path)
    return path


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "target"


def files(path):
    return {entry.name: entry.read_bytes() for entry in path.iterdir() if entry.is_file() and entry.name != "lock.mdb"}


def nothing_left(target):
    return not target.parent.exists() or not list(target.parent.iterdir())


# Copies


def test_a_copy_has_everything(stores, cls, victim, target):
    maintenance.copy(victim, target)
    assert [entry.name for entry in target.parent.iterdir()] == ["target"]
    assert maintenance.verify(target) == []
    assert state_of(cls, target) == stores[cls][1]
    assert state_of(cls, victim) == stores[cls][1]


def test_a_copy_of_a_store_that_this_process_has_open(cls, path, target):
    with cls(path) as store:
        fill(store)
        store.sync()
        expected = state(store)
        maintenance.copy(path, target)
        assert maintenance.verify(path) == []
        store["later"] = {"x": 1}
        store.sync()
        store._check()
    assert state_of(cls, target) == expected


@pytest.mark.parametrize("one", [POD, Tracker])
def test_a_copy_has_what_only_the_log_has(one, path, target):
    with logging(10**6), one(path) as store:
        fill(store)
        store.sync()
        store["key 5"] = {"only": "in the log"}
        del store["key 6"]
        store.sync()
        assert store._store.wal
        expected = state(store)
        maintenance.copy(path, target)
        repaired = maintenance.repair  # (not while it is open)
        with pytest.raises(StoreInUseError):
            repaired(path, target.parent / "repaired")
        assert maintenance.verify(path) == []
    assert state_of(one, target) == expected


def write_on(pipe, cls, path):
    with cls(path, sync_at=10**6) as store:
        for number in itertools.count():
            # (not without end: what looks at it would have ever more to look at)
            key = number % MOST
            store[key] = value_for(cls, "x" * (key % 50) * 20)
            if number % 20 == 0:
                store.sync()
            if number == 100:
                pipe.send("begun")


def test_copies_while_another_process_writes_are_of_one_moment(cls, path, target):
    lengths = []
    with Child(write_on, cls, path) as child:
        assert child.pipe.recv() == "begun"
        for number in range(4):
            copied = target.parent / str(number)
            maintenance.copy(path, copied)
            assert maintenance.verify(path) == []
            with cls(copied) as store:
                store._check()
                assert list(store) == list(range(len(store)))
                for key in list(store)[-50:]:
                    value = plain(store[key]) if is_tracker(cls) else store[key]
                    assert value == value_for(cls, "x" * (key % 50) * 20)
                lengths.append(len(store))
                if not issubclass(cls, SharedPOD):
                    assert len(store) % 20 == 1 or len(store) == MOST, "it ends with a sync"
    assert lengths == sorted(lengths)
    assert lengths[0] > 80


def test_a_copy_gives_back_what_was_claimed(path, target):
    with SharedTracker(path) as tracker:
        tracker.add_many(["a", "b", "c"])
        for _ in tracker.try_keys():
            maintenance.copy(path, target)
            assert maintenance.verify(path) == maintenance.verify(target) == []
            with pytest.raises(StoreInUseError):
                maintenance.compact(path)
            break
    with SharedTracker(target) as copied:
        copied._check()
        assert list(copied.todo_keys()) == ["a", "b", "c"]


@pytest.mark.parametrize("make", [maintenance.copy, maintenance.repair])
def test_a_target_that_is_there_is_left_alone(victim, stores, cls, tmp_path, make):
    (tmp_path / "file").write_text("text")
    for name in ("file", "store"):
        with pytest.raises(NotAStoreError, match="new path"):
            make(victim, tmp_path / name)
    assert (tmp_path / "file").read_text() == "text"
    assert sorted(os.listdir(tmp_path)) == ["file", "store"]
    assert state_of(cls, victim) == stores[cls][1]


@pytest.mark.parametrize("make", [maintenance.copy, maintenance.repair])
def test_a_target_may_be_an_empty_folder(victim, stores, cls, target, make):
    target.mkdir(parents=True)
    make(victim, target)
    assert state_of(cls, target) == stores[cls][1]


@pytest.mark.parametrize("make", [maintenance.copy, maintenance.repair])
def test_what_is_no_store_is_not_copied(tmp_path, target, make):
    with pytest.raises(StoreNotFoundError):
        make(tmp_path / "missing", target)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note").write_text("x")
    with pytest.raises(NotAStoreError):
        make(tmp_path / "other", target)
    assert nothing_left(target)


def limited(pipe, work, *arguments):
    resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, 80_000))
    try:
        pipe.send(work(*arguments))
    except Exception as error:
        pipe.send(error)


def test_a_full_disk_leaves_everything_as_it_was(stores, cls, victim, target):
    for work in (maintenance.copy, maintenance.repair):
        (error,) = outcome_of(limited, work, victim, target)
        assert isinstance(error, DiskFullError), error
        assert nothing_left(target)
    (error,) = outcome_of(limited, maintenance.compact, victim)
    assert isinstance(error, DiskFullError), error
    assert "data.compacted" not in os.listdir(victim)
    assert maintenance.verify(victim) == []
    assert state_of(cls, victim) == stores[cls][1]


# Space given back


def test_compacting_gives_space_back(cls, path):
    with cls(path, file_size=77) as store:
        store.update((number, value_for(cls, "x" * 500)) for number in range(3000))
        store.sync()
        for number in range(10, 3000):
            del store[number]
    size = os.stat(path / "data.mdb").st_size
    before, after = maintenance.compact(path)
    assert before >= size > 1_500_000
    assert after == os.stat(path / "data.mdb").st_size < 100_000
    assert maintenance.verify(path) == []
    with cls(path, file_size=77) as store:
        store._check()
        assert list(store) == list(range(10))
        store["new"] = value_for(cls, 1)
        assert list(store)[-1] == "new"
    assert maintenance.compact(path)[1] <= after + 2 * PAGE
    assert maintenance.verify(path) == []


def test_compacting_keeps_everything(stores, cls, victim):
    maintenance.compact(victim)
    assert state_of(cls, victim) == stores[cls][1]


def test_compacting_takes_the_log_in(path):
    with logging(10**6):
        with Child(leave_a_log, path) as child:
            expected = child.pipe.recv()
            child.kill()
        maintenance.compact(path)
        assert state_of(POD, path) == expected
    with lmdb.open(str(path), max_dbs=8) as db, db.begin() as txn:
        assert txn.stat(db.open_db(b"log", txn=txn, create=False))["entries"] == 0


def leave_a_log(pipe, path):
    store = POD(path)
    fill(store)
    store.sync()
    assert store._store.wal
    pipe.send(state(store))
    pipe.recv()


def hold(pipe, cls, path, mode):
    options = {} if issubclass(cls, SharedPOD) else {"mode": mode}
    with cls(path, **options):
        pipe.send("open")
        pipe.recv()


@pytest.mark.parametrize("mode", ["w", "r"])
def test_compacting_refuses_while_somebody_has_the_store_open(stores, cls, victim, mode):
    before = files(victim)["data.mdb"]
    with Child(hold, cls, victim, mode) as child:
        assert child.pipe.recv() == "open"
        with pytest.raises(StoreInUseError):
            maintenance.compact(victim)
    options = {} if issubclass(cls, SharedPOD) else {"mode": mode}
    with cls(victim, **options) as store:
        with pytest.raises(StoreInUseError):
            maintenance.compact(victim)
        assert state(store) == stores[cls][1]
    assert files(victim)["data.mdb"] == before or issubclass(cls, SharedPOD)
    maintenance.compact(victim)
    assert state_of(cls, victim) == stores[cls][1]


def in_time(work):
    """What ``work()`` returns, when those have ended who keep it from the store."""
    until = time.monotonic() + 60
    while True:
        try:
            return work()
        except StoreInUseError:
            assert time.monotonic() < until
            time.sleep(0.002)


STEPS = [(engine, "write_copy"), (EngineLock, "invalidate"), (os, "rename"), (os, "fsync"), (os, "chmod"),
         (engine, "open_engine")]


def die_at(pipe, path, owner, name, after, count):
    """Compact, and die of SIGKILL before or after the given call of a function."""
    function = getattr(owner, name)
    left = count

    def deadly(*arguments, **keywords):
        nonlocal left
        left -= 1
        if left == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **keywords)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)
    pipe.send(list(_compact.compact_store(str(path))))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
def test_a_kill_at_each_step_of_compacting_costs_nothing(stores, path, owner, name, after):
    for one in (Tracker, SharedTracker):
        for count in (1, 2, 3, 4):
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(stores[one][0], path)
            with Child(die_at, path, owner, name, after, count) as child:
                told = child.receive_all()
                assert child.wait() == (0 if told else -signal.SIGKILL)
            assert maintenance.verify(path) == []
            assert state_of(one, path) == stores[one][1]
            maintenance.compact(path)
            assert "data.compacted" not in os.listdir(path)
            assert state_of(one, path) == stores[one][1]
            if told:
                break


def compact_on(pipe, path):
    pipe.send("begun")
    while True:
        in_time(lambda: maintenance.compact(path))


@pytest.mark.storm
def test_kills_at_random_points_of_compacting_cost_nothing(stores, cls, victim):
    """The caller is killed, and the process in which it is done ends with it."""
    rng = random.Random(cls.__name__)
    for _ in range(8):
        with Child(compact_on, victim) as child:
            assert child.pipe.recv() == "begun"
            for _ in range(rng.randrange(10_000_000)):
                pass
            child.kill()
            assert child.wait() == -signal.SIGKILL
        assert in_time(lambda: state_of(cls, victim)) == stores[cls][1]
        assert maintenance.verify(victim) == []


def read_on(pipe, cls, path):
    """Open, read and close; the number of the last change that was seen."""
    last = -1
    rounds = 0
    while not pipe.poll():
        with cls(path, mode="r") as store:
            found = store["generation"]["value"]
            assert found >= last
            assert len(store) == 501
            last = found
        rounds += 1
    pipe.recv()
    pipe.send((last, rounds))


@pytest.mark.storm
@pytest.mark.parametrize("one", [POD, Tracker])
def test_who_opens_a_store_while_it_is_compacted_sees_the_newest(path, one):
    with one(path) as store:
        store["generation"] = {"value": 0}
        store.update((number, {"value": "x" * 300}) for number in range(500))
    with ExitStack() as stack:
        readers = [stack.enter_context(Child(read_on, one, path)) for _ in range(2)]
        for disk_version in range(1, 13):
            with one(path) as store:
                store["generation"] = {"value": disk_version}
                for number in range(500):
                    store[number] = {"value": "y" * (300 + disk_version)}
            in_time(lambda: maintenance.compact(path))
            with one(path, mode="r") as store:
                assert store["generation"]["value"] == disk_version
        for reader in readers:
            reader.pipe.send("stop")
        for reader in readers:
            ((last, rounds),) = reader.receive_all()
            assert reader.wait() == 0
            assert 0 <= last <= 12
            assert rounds
    assert maintenance.verify(path) == []
    with one(path) as store:
        store._check()


# Damage found


def test_sound_stores_are_sound(stores, cls, victim):
    assert maintenance.verify(victim) == []
    with cls(victim) as store:
        assert maintenance.verify(victim) == []
        store["later"] = {"x": 1}
        store.sync()
        assert maintenance.verify(victim) == []


def test_an_empty_store_is_sound(cls, path, target):
    cls(path).close()
    assert maintenance.verify(path) == []
    assert maintenance.repair(path, target) == (0, [], 0)
    assert maintenance.compact(path)[1] > 0
    assert state_of(cls, target) == state_of(cls, path) == []


@pytest.mark.parametrize("damage", WHOLE_FILE)
def test_a_damaged_file_is_found(stores, path, damage):
    shutil.copytree(stores[Tracker][0], path)
    data = path / "data.mdb"
    data.write_bytes(WHOLE_FILE[damage](data.read_bytes()))
    before = files(path)
    assert maintenance.verify(path)
    assert files(path) == before


@pytest.mark.parametrize("damage", {**INSIDE, **INSIDE_TRACKER})
def test_damage_inside_is_found(stores, path, damage):
    one = Tracker if damage in INSIDE_TRACKER else random.Random(damage).choice(list(CLASSES.values()))
    shutil.copytree(stores[one][0], path)
    with Inside(path) as inside:
        {**INSIDE, **INSIDE_TRACKER}[damage][0](inside)
    before = files(path)
    found = maintenance.verify(path)
    assert found
    assert all(type(fault) is str and fault for fault in found)
    assert files(path)["data.mdb"] == before["data.mdb"]


def test_a_head_of_statuses_that_is_wrong_is_found(stores, path):
    shutil.copytree(stores[Tracker][0], path)
    with Inside(path) as inside:
        change_block(lambda raw: bytes([raw[0], raw[1], raw[2] ^ 1]) + raw[3:])(inside)
    (fault,) = maintenance.verify(path)
    assert "status block 0" in fault


META = {"transaction": (144, 8), "last page": (136, 8), "size of the map": (32, 8)}


@pytest.mark.parametrize("value", [0, 1, 2**60, 2**62, 2**62 + 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1])
@pytest.mark.parametrize("field", META)
@pytest.mark.parametrize("page", [0, 1])
def test_a_number_in_a_meta_page_that_cannot_be_is_found(stores, path, target, field, value, page):
    """Nothing is lost by it, unless it may be the number of an older commit."""
    shutil.copytree(stores[POD][0], path)
    for number in range(4):
        with POD(path) as pod:
            pod["more"] = number
    at, size = META[field]
    before = struct.unpack_from("=Q", (path / "data.mdb").read_bytes(), page * PAGE + at)[0]
    assert before > 1
    overwrite(path, page, lambda raw: raw[:at] + value.to_bytes(size, "little") + raw[at + size :])
    faults = maintenance.verify(path)
    # (the size of the file before the last commit is nothing that a store needs)
    assert faults or (field, value) == ("last page", 1)
    kept, lost, _ = maintenance.repair(path, target)
    assert (kept, bool(lost)) == (len(stores[POD][1]) + 1, bool(faults))
    with POD(target) as pod:
        assert pod["more"] in ((2, 3) if value <= 1 and field == "transaction" else (3,))


@pytest.mark.parametrize("size", [0, 7, 9])
def test_an_order_number_of_other_than_8_bytes_is_found(stores, path, size):
    shutil.copytree(stores[POD][0], path)
    # (in a leaf that opening does not look at)
    number = NUMBER.pack(200)
    (page,) = (page for page in page_that(path, lambda flags, page: flags == 2 and number + b"\x01" in page))

    def change(raw):
        at = raw.index(number + b"\x01") - 2
        assert raw[at : at + 2] == b"\x08\0"
        return raw[:at] + struct.pack("=H", size) + raw[at + 2 :]

    overwrite(path, page, change)
    assert any(f"page {page} of" in fault or "key of" in fault for fault in maintenance.verify(path))


@pytest.mark.parametrize("node", [b"values", b"status"])
@pytest.mark.parametrize("flag", [4, 8, 0x4000])
def test_a_node_with_an_unknown_flag_is_found_and_kept(stores, path, target, node, flag):
    """A record, and 500 statuses."""
    shutil.copytree(stores[Tracker][0], path)
    with Inside(path) as inside:
        value = inside.record(5) if node == b"values" else inside.txn.get(NUMBER.pack(0), db=inside.status)
    wanted = b"\x08\0" + NUMBER.pack(5 if node == b"values" else 0) + value
    (page,) = page_that(path, lambda flags, page: flags == 2 and wanted in page)

    def change(raw):
        at = raw.index(wanted) - 2
        return raw[:at] + struct.pack("=H", flag) + raw[at + 2 :]

    overwrite(path, page, change)
    assert any(f"page {page} of" in fault for fault in maintenance.verify(path))
    assert maintenance.repair(path, target) == (len(stores[Tracker][1]), [], 0)
    assert state_of(Tracker, target) == stores[Tracker][1]


def versions(path):
    """The data file after each of some commits, each of which changes a key."""
    found = []
    with POD(path) as pod:
        pod.update((number, {"x": "y" * 50}) for number in range(2000))
        pod.sync()
        for number in range(9):
            pod.update((key, {"x": number}) for key in range(number * 100, number * 100 + 582))
            pod.sync()
            found.append((path / "data.mdb").read_bytes())
    return found


def meta_of(data, newest=True):
    """Where the newer or the older of the first two pages begins."""
    numbers = [struct.unpack_from("=Q", data, page * PAGE + 144)[0] for page in (0, 1)]
    return numbers.index(max(numbers) if newest else min(numbers)) * PAGE


def with_number(data, newest, change):
    """The newer or the older meta page says to be of another transaction."""
    at = meta_of(data, newest) + 144
    return data[:at] + struct.pack("=Q", change(struct.unpack_from("=Q", data, at)[0])) + data[at + 8 :]


def from_older(data, old, part):
    at, source = meta_of(data), meta_of(old)
    return data[: at + part.start] + old[source + part.start : source + part.stop] + data[at + part.stop :]


OLDER_TREES = {
    "the older page says to be the newest": lambda data, old: with_number(data, False, lambda number: number + 2),
    "the older page says to be much newer": lambda data, old: with_number(data, False, lambda number: number + 64),
    "the newest page says to be older": lambda data, old: with_number(data, True, lambda number: number - 4),
    "the newest page says to be the first": lambda data, old: with_number(data, True, lambda number: number & 1),
    "the list of databases is an older one": lambda data, old: from_older(data, old, slice(88, 136)),
    "the free list is an older one": lambda data, old: from_older(data, old, slice(40, 88)),
    "both are, with the last page": lambda data, old: from_older(data, old, slice(40, 144)),
    "one meta page is from an older file": lambda data, old: (
        data[: meta_of(data)] + old[meta_of(data) : meta_of(data) + PAGE] + data[meta_of(data) + PAGE :]),
}


@pytest.mark.parametrize("damage", OLDER_TREES)
@pytest.mark.parametrize("back", [2, 4])
def test_a_store_that_went_back_to_an_older_tree_is_found(path, damage, back):
    *olds, data = versions(path)
    assert maintenance.verify(path) == []
    old = olds[-back]
    if damage == "one meta page is from an older file" and with_number(old, True, lambda number: number + 2)[
        meta_of(old) + 144 : meta_of(old) + 152] == data[meta_of(data) + 144 : meta_of(data) + 152]:
        return  # (as if the last transaction had never been committed)
    (path / "data.mdb").write_bytes(OLDER_TREES[damage](data, old))
    assert maintenance.verify(path)


@pytest.mark.parametrize("sizes", list(itertools.permutations((100, 3_000, 9_000, 100_000))))
def test_a_large_value_that_is_rewritten_within_one_transaction_is_no_damage(path, target, sizes):
    """The engine keeps the pages of a value that gets smaller in the transaction that made it."""
    with SharedPOD(path) as pod:
        pod["a"] = "x" * 20_000
        with pod.transaction():
            for size in sizes:
                pod["a"] = "x" * size
        assert maintenance.verify(path) == []
    with lmdb.open(str(path), max_dbs=8, map_size=1 << 28) as db, db.begin(write=True) as txn:
        values = db.open_db(b"values", txn=txn, create=False, integerkey=True)
        (key, record), = txn.cursor(values)
        for size in (*sizes, sizes[0]):
            txn.put(key, record + b" " * size, db=values)
        txn.put(key, record, db=values)
    assert maintenance.verify(path) == []
    assert maintenance.repair(path, target) == (1, [], 0)


def test_a_claim_that_nobody_has_is_found(path):
    with SharedTracker(path) as tracker:
        tracker.add_many(range(1000))
        tracker.sync()
    with lmdb.open(str(path), max_dbs=8) as db, db.begin(write=True) as txn:
        claims = db.open_db(b"claims", txn=txn, integerkey=True)
        txn.put(NUMBER.pack(700), bytes(40), db=claims)
        images = db.open_db(b"images", txn=txn, integerkey=True)
        txn.put(NUMBER.pack(3), b"ab", db=images)
    assert maintenance.verify(path) == [
        "task 700 has a claim, but is not marked as claimed",
        "the before-image of record 3: it is cut short",
    ]


@pytest.mark.parametrize("is_damaged", [False, True])
def test_findings_beside_a_writer_count_only_in_a_read_transaction(victim, monkeypatch, is_damaged):
    """Without one the writer may overwrite pages that are read."""
    seen = iter([(7, ["page 738 is overwritten"]), (8, ["damage"] if is_damaged else [])])
    monkeypatch.setattr(_verify, "find_page_faults", lambda name: next(seen))
    monkeypatch.setattr(_verify, "last_transaction", lambda name: 9)
    assert list(verify_store(str(victim))) == (["data.mdb: damage"] if is_damaged else [])
    assert next(seen, None) is None


@pytest.fixture
def logged(path):
    """A store that has much in its log, as a killed process has left it."""
    with logging(10**6), Child(leave_a_log, path) as child:
        expected = child.pipe.recv()
        child.kill()
        child.wait()
    return expected


def damage_log(path, change):
    with lmdb.open(str(path), max_dbs=8) as db:
        log = db.open_db(b"log", integerkey=True)
        with db.begin(write=True) as txn:
            pieces = list(txn.cursor(log))
            key, piece = change(pieces)
            if piece is None:
                txn.delete(key, db=log)
            else:
                txn.put(key, piece, db=log)


LOG_DAMAGE = {
    "a bit": lambda pieces: (pieces[-1][0], pieces[-1][1][:-1] + bytes([pieces[-1][1][-1] ^ 1])),
    "the head": lambda pieces: (pieces[0][0], b"\xff" * 8 + pieces[0][1][8:]),
    "a piece": lambda pieces: (pieces[1][0], None),
    "cut short": lambda pieces: (pieces[-1][0], pieces[-1][1][:5]),
}


@pytest.mark.parametrize("change", LOG_DAMAGE.values(), ids=LOG_DAMAGE)
def test_a_damaged_log_is_found_and_the_rest_is_kept(path, target, logged, change):
    assert maintenance.verify(path) == []
    damage_log(path, change)
    assert any("log" in fault for fault in maintenance.verify(path))
    kept, lost, _ = maintenance.repair(path, target)
    assert any("sync" in text for text in lost)
    assert maintenance.verify(target) == []
    found = state_of(POD, target)
    assert kept == len(found)
    expected = dict(logged)
    assert all(value == expected[key] for key, value in found)
    order = [key for key, _ in logged]
    assert [key for key, _ in found] == [key for key in order if key in dict(found)]


def test_what_is_no_store_is_found(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(noise(10_000))
    for name, file in (("other", "note.txt"), ("original", "0.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("x")
    (tmp_path / "random").mkdir()
    (tmp_path / "random" / "data.mdb").write_bytes(noise(100_000))
    with lmdb.open(str(tmp_path / "lmdb"), max_dbs=2) as db:
        db.open_db(b"somebody's")
    for name in ("empty", "file", "other", "original", "random", "lmdb"):
        found = maintenance.verify(tmp_path / name)
        assert found, name
        assert str(tmp_path / name) in found[0]
    with pytest.raises(StoreNotFoundError):
        maintenance.verify(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_a_newer_format_is_not_judged(stores, path, target):
    victim = shutil.copytree(stores[Tracker][0], path)
    with Inside(victim) as inside:
        change_meta(b"format", b"99")(inside)
    with pytest.raises(NewerFormatError):
        maintenance.verify(victim)
    with pytest.raises(NewerFormatError):
        maintenance.repair(victim, target)
    assert nothing_left(target)


def crash(*arguments):
    os.abort()


def be_killed(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_crash_of_the_engine_is_a_finding(stores, path, target, monkeypatch):
    victim = shutil.copytree(stores[POD][0], path)
    monkeypatch.setattr(maintenance, "verify_store", crash)
    (fault,) = maintenance.verify(victim)
    assert "SIGABRT" in fault
    monkeypatch.setattr(maintenance, "copy_store", crash)
    with pytest.raises(PersistentOrderedDictIntegrityError, match="SIGABRT"):
        maintenance.copy(victim, target)
    monkeypatch.setattr(maintenance, "verify_store", be_killed)
    with pytest.raises(StorageError, match="SIGKILL"):
        maintenance.verify(victim)
    assert nothing_left(target)


def pages_of(path):
    return os.stat(path / "data.mdb").st_size // PAGE


def overwrite(path, number, make):
    with open(path / "data.mdb", "r+b") as file:
        file.seek(number * PAGE)
        page = bytearray(file.read(PAGE))
        file.seek(number * PAGE)
        file.write(make(page))


def flips(rng):
    """A few bits of a page are turned."""

    def make(page):
        for _ in range(rng.choice((1, 3, 20))):
            page[rng.randrange(rng.choice((16, 60, PAGE)))] ^= 1 << rng.randrange(8)
        return page

    return make


def no_worse(before, found, lost, undone, after):
    """Nothing that was kept is wrong or at another place, and what is missing is told."""
    index = {row[0]: position for position, row in enumerate(before)}
    known = [row for row in found if row[0] in index]
    changed = [row for row in known if row != before[index[row[0]]]]
    assert [index[row[0]] for row in known] == sorted(index[row[0]] for row in known) or lost
    missing = len(before) - len(known)
    assert not missing or lost
    assert not changed or lost or undone or after == []


@pytest.mark.storm
def test_no_flipped_bit_ends_anything_or_goes_untold(stores, path, tmp_path, seed):
    """(What is data, a digit for another one, cannot be known.)"""
    rng = random.Random(seed)
    for number in range(25):
        one = rng.choice(list(CLASSES.values()))
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(stores[one][0], path)
        overwrite(path, rng.randrange(pages_of(path)), flips(rng))
        before = files(path)
        faults = maintenance.verify(path)
        try:
            kept, lost, undone = maintenance.repair(path, tmp_path / str(number))
        except (NewerFormatError, PersistentOrderedDictIntegrityError, NotAStoreError):
            assert faults
            continue
        assert files(path) == before
        after = maintenance.verify(tmp_path / str(number))
        assert after == []
        kind = PRIVATE.get(one, one)
        with kind(tmp_path / str(number)) as store:
            found = state(store)
        assert len(found) == kept
        no_worse(stores[one][1], found, lost, undone, faults)
        if not faults:
            assert (kept, lost, undone) == (len(stores[one][1]), [], 0)


# What is left brought out of it


def test_repairing_a_sound_store_loses_nothing(stores, cls, victim, target):
    before = files(victim)
    assert maintenance.repair(victim, target) == (len(stores[cls][1]), [], 0)
    assert files(victim) == before
    assert maintenance.verify(target) == []
    assert [entry.name for entry in target.parent.iterdir()] == ["target"]
    assert state_of(cls, target) == stores[cls][1]


def test_repairing_takes_the_log_in(path, target, logged):
    assert maintenance.repair(path, target) == (len(logged), [], 0)
    assert state_of(POD, target) == logged


def test_repairing_refuses_while_somebody_may_write(cls, victim, target):
    with cls(victim), pytest.raises(StoreInUseError):
        maintenance.repair(victim, target)
    assert nothing_left(target)


# Damage to the index, the counts and what else can be made anew: nothing of it is a loss.
REBUILT = {
    "a record without index entry", "an index entry cut short", "an index entry out of range",
    "an index entry of a number never given", "an index entry of another key's record",
    "a digest of another key's record", "no index", "no format", "a format that does not parse", "no kind",
    "an unknown kind", "a next number cut short",
}
# Damage to the record of one task, which is known still.
WITHOUT_DATA = {"JSON that does not parse", "JSON that is not UTF-8", "no payload", "said to be compressed",
                "data that is no dict", "unknown format of a record"}
STATUSES = {"a status block cut short", "an empty status block", "a status block too long", "no status block",
            "no statuses"}


@pytest.mark.parametrize("damage", [damage for damage in {**INSIDE, **INSIDE_TRACKER} if damage != "no values"])
@pytest.mark.parametrize("one", [pytest.param(POD, marks=pytest.mark.storm), Tracker])
def test_damage_inside_is_repaired(stores, path, target, one, damage):
    if damage in INSIDE_TRACKER and one is POD:
        pytest.skip("a plain dict has no statuses")
    shutil.copytree(stores[one][0], path)
    with Inside(path) as inside:
        {**INSIDE, **INSIDE_TRACKER}[damage][0](inside)
    if {b"order", b"meta"} - set(find_databases(str(path / "data.mdb"))):
        with pytest.raises(NotAStoreError):  # LMDB's, but nothing says that it is a store's
            maintenance.repair(path, target)
        return
    kept, lost, undone = maintenance.repair(path, target)
    assert maintenance.verify(target) == []
    found, before = state_of(one, target), stores[one][1]
    assert kept == len(found)
    rows = {row[0]: row for row in found}
    if damage in REBUILT:
        assert (found, lost, undone) == (before, [], 0)
    elif damage == "a record out of range":
        assert rows["key 5"][1] == {"number": 5, "text": "y" * 50}
        assert lost
    elif damage in STATUSES:
        assert [row[:2] for row in found] == [row[:2] for row in before]
        assert undone == len(before)
        assert not any(row[2] for row in found)
        assert any("kept as not done" in text for text in lost)
    elif damage == "a status without record":
        assert found == before
        assert [text for text in lost if "450" in text]
    elif damage == "a record without status":
        assert found == [row if row[0] != "key 5" else ("key 5", row[1], False, False, 0) for row in before]
        assert undone == 1
        assert "'key 5'" in lost[0]
    elif damage in WITHOUT_DATA and one is Tracker:
        if damage != "unknown format of a record":
            assert [row for row in found if row[0] != "key 5"] == [row for row in before if row[0] != "key 5"]
        assert "key 5" in rows
        if damage not in ("no payload",):
            assert lost or rows["key 5"] == before[5]
    else:
        assert [row for row in before if row[0] != "key 5"] == [row for row in found if row[0] in dict_of(before)]
        assert any("'key 5'" in text for text in lost)


def dict_of(rows):
    return {row[0]: row for row in rows if row[0] != "key 5"}


@pytest.mark.parametrize("one", [POD, pytest.param(Tracker, marks=pytest.mark.storm)])
def test_any_page_may_be_lost(stores, path, tmp_path, one, seed):
    rng = random.Random(seed)
    before = stores[one][1]
    pages = rng.sample(range(2, pages_of(stores[one][0])), 12)
    for number in pages:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(stores[one][0], path)
        overwrite(path, number, lambda page: noise(len(page)))
        new = tmp_path / str(number)
        kept, lost, undone = maintenance.repair(path, new)
        assert maintenance.verify(new) == []
        found = state_of(one, new)
        assert kept == len(found)
        there = {row[0] for row in found}
        told = "\n".join(lost)
        expected = [row for row in before if row[0] in there]
        assert [row[0] for row in found] == [row[0] for row in expected]
        for row, right in zip(found, expected, strict=True):
            assert row[1] == right[1] or (one is Tracker and row[1] == {} and f"the data of task {row[0]!r}" in told)
        for row in before:
            if row[0] not in there:
                assert repr(row[0])[:40] in told or "too long" in told
        if one is Tracker:
            wrong = [row for row, right in zip(found, expected, strict=True) if row != right]
            assert len(wrong) <= undone
            assert not any(row[2] for row in wrong)


def page_that(path, wanted):
    """The number of the first page for which ``wanted(flags, content)`` holds."""
    data = (path / "data.mdb").read_bytes()
    for number in range(2, len(data) // PAGE):
        page = data[number * PAGE : (number + 1) * PAGE]
        own, _, flags = struct.unpack_from("=QHH", page)
        if own == number and wanted(flags, page):
            yield number


def test_pages_that_lost_pages_led_to_are_found(stores, cls, victim, target):
    """The root of every tree, and the list of databases."""
    branches = list(page_that(victim, lambda flags, page: flags == 1))
    assert len(branches) >= 2
    for number in branches:
        overwrite(victim, number, lambda page: bytes(len(page)))
    kept, lost, undone = maintenance.repair(victim, target)
    assert (kept, undone) == (len(stores[cls][1]), 0)
    assert all("overwritten" in text for text in lost)
    assert state_of(cls, target) == stores[cls][1]
    for number in page_that(victim, lambda flags, page: flags == 2 and b"values" in page and b"meta" in page):
        overwrite(victim, number, lambda page: bytes(len(page)))
    kept, lost, undone = maintenance.repair(victim, target.parent / "again")
    found = state_of(cls, target.parent / "again")
    assert [row[:2] for row in found] == [row[:2] for row in stores[cls][1]]
    assert undone == 0
    assert found == stores[cls][1]


def test_the_older_of_the_first_two_pages_serves(stores, path, target):
    for number in (0, 1):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(stores[POD][0], path)
        for value in range(3):
            with POD(path) as store:
                store["more"] = value
        overwrite(path, number, lambda page: noise(len(page)))
        kept, lost, _ = maintenance.repair(path, target.parent / str(number))
        assert lost
        assert kept == len(stores[POD][1]) + 1
        assert maintenance.verify(target.parent / str(number)) == []
    overwrite(path, 0, lambda page: noise(len(page)))
    with pytest.raises(PersistentOrderedDictIntegrityError, match="first two pages"):
        maintenance.repair(path, target)
    assert not target.exists()


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_truncated_file_gives_what_it_has(stores, cls, victim, target, part):
    os.truncate(victim / "data.mdb", int(os.stat(victim / "data.mdb").st_size * part))
    try:
        kept, lost, _ = maintenance.repair(victim, target)
    except PersistentOrderedDictIntegrityError:
        return
    assert lost
    assert maintenance.verify(target) == []
    if any("the kind of the store cannot be read" in text for text in lost):
        cls = Tracker if any("a ProgressTracker" in text for text in lost) else POD
    found = state_of(cls, target)
    assert kept == len(found)
    values = {row[0]: row[1] for row in stores[cls][1]}
    assert all(values[row[0]] == row[1] or not row[1] for row in found)


def test_two_records_of_one_key_are_one(stores, path, target):
    shutil.copytree(stores[POD][0], path)
    with Inside(path) as inside:
        inside.put(7000, inside.record(5))
    kept, lost, _ = maintenance.repair(path, target)
    assert kept == len(stores[POD][1])
    assert any("twice" in text for text in lost)
    assert maintenance.verify(target) == []
    with POD(target) as store:
        assert list(store)[-1] == "key 5"
        assert store[LONG_KEY] == {"number": 400}


def number_record(path, before, after):
    """A record has another number now, with which nothing else goes."""
    with Inside(path) as inside:
        record = inside.record(before)
    file = path / "data.mdb"
    data = file.read_bytes()
    assert data.count(NUMBER.pack(before) + record) == 1
    file.write_bytes(data.replace(NUMBER.pack(before) + record, NUMBER.pack(after) + record))


@pytest.mark.parametrize("after", [4, 6, 9000])
@pytest.mark.parametrize("one", [POD, Tracker])
def test_a_record_at_a_wrong_place_is_told(stores, path, target, one, after):
    shutil.copytree(stores[one][0], path)
    number_record(path, 5, after)
    assert maintenance.verify(path)
    kept, lost, undone = maintenance.repair(path, target)
    assert maintenance.verify(target) == []
    found, before = state_of(one, target), stores[one][1]
    assert kept == len(before)
    assert sorted(map(repr, (row[:2] for row in found))) == sorted(map(repr, (row[:2] for row in before)))
    displaced = {row[0] for row, right in zip(found, before, strict=True) if row[0] != right[0]}
    assert any("'key 5'" in text and "position" in text for text in lost)
    if one is Tracker:
        # Nobody's status becomes another one's.
        assert undone >= 1
        rows = {row[0]: row for row in before}
        wrong = [row for row in found if row != rows[row[0]]]
        assert len(wrong) <= undone
        assert not any(row[2] for row in wrong)
    assert displaced


def repair_on(pipe, path, folder):
    pipe.send("begun")
    for number in range(10**6):
        maintenance.repair(path, folder / str(number))


def test_kills_of_repair_leave_whole_stores_or_none(stores, cls, victim, target):
    rng = random.Random(cls.__name__)
    for number in range(3):
        folder = target.parent / str(number)
        with Child(repair_on, victim, folder) as child:
            assert child.pipe.recv() == "begun"
            for _ in range(rng.randrange(20_000_000)):
                pass
            child.kill()
            child.wait()
        for made in folder.iterdir() if folder.exists() else ():
            # (what a killed one leaves has a longer name)
            if made.name.isdecimal():
                assert state_of(cls, made) == stores[cls][1]
    assert state_of(cls, victim) == stores[cls][1]


def peak_of(pipe, work, *arguments):
    tracemalloc.start()
    result = list(work(*map(str, arguments)))
    pipe.send((result, tracemalloc.get_traced_memory()[1]))


@pytest.mark.storm
def test_memory_does_not_grow_with_the_store(tmp_path):
    peaks = []
    for count in (3_000, 18_000):
        path = tmp_path / str(count)
        with Tracker(path) as tracker:
            tracker.update((number, {"x": number}) for number in range(count))
        new = tmp_path / f"{count}.new"
        new.mkdir()
        ((result, repairing),) = outcome_of(peak_of, repair_store, path, new)
        assert result == [(count, [], 0)]
        ((result, verifying),) = outcome_of(peak_of, verify_store, path)
        assert result == []
        peaks.append((repairing, verifying))
    for small, large in zip(*peaks, strict=True):
        assert large < small + 300_000
