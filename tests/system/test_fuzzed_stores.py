"""Stores whose pages are damaged at random: the results of verify(), repair() and reading.

verify() never raises. If it reports nothing, the store has its state after some commit. repair() keeps everything that
the store itself can still read, and nothing that was not stored.
"""

from __future__ import annotations

import contextlib
import faulthandler
import random
import shutil
import signal

import pytest

from tastypy_fast import (
    POD,
    NewerFormatError,
    NotAStoreError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
    SharedPOD,
    SharedTracker,
    Tracker,
)
from tastypy_fast._store.read_only import open_for_inspection
from tastypy_fast.maintenance._repair import repair_store
from tastypy_fast.maintenance._verify import verify_store
from tests.support.children import Child
from tests.support.page_damage import DAMAGES, overwrite_bytes
from tests.support.stores import is_tracker, logging

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

# Class, options, whether its syncs stay in the log, and the size of some values.
KINDS = {
    "dict": (POD, {}, False, 50),
    "tracker": (Tracker, {}, False, 50),
    "shared dict": (SharedPOD, {"durability": "normal"}, False, 9_000),
    "shared tracker": (SharedTracker, {"durability": "normal"}, False, 50),
    "large": (POD, {}, False, 30_000),
    "compressed": (Tracker, {"gzipped": True}, False, 9_000),
    "dict with log": (POD, {}, True, 3_000),
    "tracker with log": (Tracker, {}, True, 50),
}
PRIVATE = {SharedPOD: POD, SharedTracker: Tracker}


def key_of(number):
    """Every tenth key has a digest in the index."""
    return f"key {number}" if number % 10 else ("long" * 150, number)


def value_of(number, step, size):
    """The value of a key after a step. No prefix of its JSON is JSON."""
    text = str(number) * (size if number % 50 == 7 else 50)
    return {"number": number, "step": step, "text": text[: len(text) // len(str(number))]}


def rows_of(cls, store):
    """A dict from key to value, or to status for a task."""
    found = {}
    for key, value in store.items():
        if is_tracker(cls):
            data = {name: part for name, part in value.items() if name not in ("_done", "_aborted", "_tries")}
            found[key] = data, store.done(key), store.aborted(key), store.tries(key)
        else:
            found[key] = value
    return found


def live(pipe, cls, options, path, size):
    """Write a store in several commits, and end with a kill. Sends its data file and its contents after each commit."""
    rng = random.Random(size)
    store = cls(path, **options)
    for step in range(9):
        for number in rng.sample(range(700), 150):
            store[key_of(number)] = value_of(number, step, size)
        for key in rng.sample(store.keys(), 10):
            del store[key]
        if is_tracker(cls):
            for key in rng.sample(store.keys(), 20):
                rng.choice([store.mark_done, store.abort, store.increment_tries])(key)
        store.sync()
        pipe.send(((path / "data.mdb").read_bytes(), rows_of(PRIVATE.get(cls, cls), store)))
    if cls is SharedTracker:
        keys = store.try_keys()
        for _ in range(3):
            next(keys)
        store[key_of(701)] = value_of(701, 9, size)
        pipe.send(((path / "data.mdb").read_bytes(), rows_of(Tracker, store)))
    pipe.close()
    signal.pause()


@pytest.fixture(scope="module")
def lives(tmp_path_factory):
    """The folder of each kind of store, and its contents after each commit."""
    found = {}
    for name, (cls, options, logs, size) in KINDS.items():
        folder = tmp_path_factory.mktemp("life") / "store"
        with logging(10**6 if logs else 7), Child(live, cls, options, folder, size) as child:
            found[name] = folder, child.receive_all()
            child.kill()
            child.wait()
    return found


def handle(pipe, kind, path, target):
    """Verify, repair and read one store. Sends the outcome of each."""
    faulthandler.disable()
    for work, arguments in ((verify_store, ()), (repair_store, (str(target),))):
        try:
            pipe.send(list(work(str(path), *arguments)))
        except Exception as error:
            pipe.send(error)
    kept = {}
    if (target / "data.mdb").exists():
        store = open_for_inspection(str(target))
        cls = Tracker if store.options.kind == b"tracker" else POD
        store.close()
        with cls(target) as new:
            new._check()
            kept = rows_of(cls, new)
    pipe.send(kept)
    # From here on LMDB may end the process, because opening has checked only the outermost pages.
    try:
        with kind(path, mode="r") as store:
            try:
                pipe.send(rows_of(kind, store))
            except (KeyError, PersistentOrderedDictException):
                for key in map(key_of, range(702)):
                    with contextlib.suppress(KeyError, PersistentOrderedDictException):
                        value = store[key]
                        status = [value.pop(name) for name in ("_done", "_aborted", "_tries") if is_tracker(kind)]
                        pipe.send({key: (value, *status) if status else value})
    except PersistentOrderedDictException:
        pass


def data_of(row):
    return row[0] if type(row) is tuple else row


def check_case(lives, path, seed):
    """Damage a store, and check the outcomes."""
    rng = random.Random(seed)
    name = rng.choice(list(KINDS))
    cls, _, _, size = KINDS[name]
    folder, history = lives[name]
    damage = rng.choice(DAMAGES)
    data = bytearray(history[-1][0])
    damage(rng, data, [old for old, _ in history[:-1]])
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(folder, path / "store")
    (path / "store" / "data.mdb").write_bytes(data)
    (path / "new").mkdir()
    with Child(handle, PRIVATE.get(cls, cls), path / "store", path / "new") as child:
        faults, repaired, kept, *read = child.receive_all()
        crashed = child.wait() < 0
    context = seed, name, damage.__name__
    was = [rows for _, rows in history]

    if not isinstance(faults, NewerFormatError):
        assert isinstance(faults, list), (context, faults)
        assert not any("read to its end" in fault for fault in faults), (context, faults)
    if isinstance(repaired, Exception):
        assert isinstance(repaired, (NewerFormatError, NotAStoreError, PersistentOrderedDictIntegrityError)), context
        assert "read through" not in str(repaired), (context, repaired)
        assert faults, (context, repaired)
        assert not read, (context, repaired)
        return
    ((_, lost, _),) = repaired
    if damage is overwrite_bytes:
        # The contents of a value may differ now.
        return
    if not faults:
        assert (lost, crashed) == ([], False), context
        assert kept in was, context
    if not lost:
        assert set(kept) >= set(was[-1]) or kept in was, context
    statuses = {row[1:] for rows in was for row in rows.values() if type(row) is tuple} | {(False, False, 0)}
    for key, row in kept.items():
        number = key[1] if type(key) is tuple else int(key.split()[1])
        found = data_of(row)
        assert found == value_of(number, found.get("step"), size) or (found == {} and lost), (context, key)
        assert type(row) is not tuple or row[1:] in statuses, (context, key)
    for key, row in (pair for rows in read for pair in rows.items()):
        # Of an older and a newer version, the newer one, if the order is known.
        is_newer = kept.get(key) == was[-1].get(key) or (key in kept and "put_old" in damage.__name__)
        assert kept.get(key) == row or is_newer, (context, key, lost)


@pytest.mark.parametrize("first", [
    first if first % 160 == 0 else pytest.param(first, marks=pytest.mark.storm) for first in range(0, 240, 40)])
def test_damaged_pages_are_reported_and_readable_records_are_kept(lives, path, first):
    for seed in range(first, first + 40):
        check_case(lives, path, seed)


@pytest.mark.storm
@pytest.mark.timeout(3600)
def test_storm_of_damaged_pages(lives, path, seed):
    for number in range(1500):
        check_case(lives, path, seed + number)
