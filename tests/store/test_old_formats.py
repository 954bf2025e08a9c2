"""Open stores that earlier versions have written. What they hold is in ``format_N`` (see tests/support/old_formats)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tastypy_fast import POD, SharedPOD, SharedTracker, Tracker
from tastypy_fast._inspect.failures import iter_failures
from tastypy_fast.maintenance._verify import verify_store

FOLDERS = sorted(Path(__file__).parent.glob("format_*"))
STORES = [pytest.param(file, id=f"{file.parent.name}-{file.name.partition('.')[0]}")
          for folder in FOLDERS for file in sorted(folder.glob("*.mdb.gz"))]


@pytest.fixture
def old(request, path):
    """The folder of a store as its process has left it, and what it holds as pairs of repr(key) and value."""
    file = request.param
    path.mkdir()
    (path / "data.mdb").write_bytes(gzip.decompress(file.read_bytes()))
    contents = json.loads(gzip.decompress((file.parent / "contents.json.gz").read_bytes()))
    return path, contents[file.name.partition(".")[0]]


def faults(path):
    # (in this process, because starting another one for each store takes most of the time, and none is damaged)
    return list(verify_store(str(path)))


def found_in(store):
    return [[repr(key), value] for key, value in store.iteritems()]


def classes_for(pairs):
    return (Tracker, SharedTracker) if len(pairs) > 100 else (POD, SharedPOD)


def test_there_are_stores_of_every_format_since_the_second():
    assert len(STORES) == 21


@pytest.mark.parametrize("old", STORES, indirect=True)
def test_a_reader_finds_all_and_leaves_the_file_as_it_is(old):
    path, pairs = old
    before = (path / "data.mdb").read_bytes()
    for _ in range(2):
        with classes_for(pairs)[0](path, mode="r") as store:
            assert found_in(store) == pairs
            assert len(store) == len(pairs)
    assert (path / "data.mdb").read_bytes() == before


# Both kinds of stores have the same format. A shared class converts one of each kind in the ordinary run.
@pytest.mark.parametrize(("old", "shared"), [
    pytest.param(*file.values, shared, id=f"{'shared' if shared else 'private'}-{file.id}",
                 marks=pytest.mark.storm if shared and "shared" not in file.id else ())
    for shared in (False, True) for file in STORES
], indirect=["old"])
def test_a_writer_finds_all_and_can_change_it(old, shared):
    path, pairs = old
    assert faults(path) == []
    cls = classes_for(pairs)[shared]
    with cls(path) as store:
        assert found_in(store) == pairs
        key = "new \0 key"
        store[key] = {"x": 1}
        store["plain"] = {"x": 2}
        del store[""]
    assert faults(path) == []
    with classes_for(pairs)[0](path, mode="r") as store:
        keys = [key for key, _ in found_in(store)]
        assert sorted([*keys, repr("")]) == sorted([*(key for key, _ in pairs), repr(key)])
        assert keys[-1] == repr(key)
        assert (store[key]["x"], store["plain"]["x"]) == (1, 2)


@pytest.mark.parametrize("old", [file for file in STORES if "claims" in file.id], indirect=True)
def test_the_claims_of_a_killed_worker_are_free_again(old):
    path, _ = old
    with SharedTracker(path, max_tries=3) as store:
        in_hand = [key for key in store.todo_keys() if store.tries(key) == 1][:1]
        assert in_hand
        assert in_hand[0] in list(store.try_keys())


@pytest.mark.parametrize("old", [file for file in STORES if "format_3-" in file.id and "tracker" in file.id],
                         indirect=True)
@pytest.mark.parametrize("cls", [Tracker, SharedTracker])
def test_negative_tries_of_format_3_are_no_error(old, cls):
    path, _ = old
    with Tracker(path, mode="r") as store:
        assert [store.tries(f"task {number}") for number in (1003, 1004, 1005)] == [-1, -1, -1]
        assert list(iter_failures(store)) == []
    with cls(path) as store:
        keys = [f"task {number}" for number in (1003, 1004, 1005)]
        assert [store.tries(key) for key in keys] == [-1, -1, -1]
        # Their status has the flag of an error, which belonged to the sign.
        assert store[keys[0]] == {"_done": False, "_aborted": False, "_tries": -1}
        assert next(iter(store.todo_keys())) == ""
        store.mark_done(keys[0])
        store.mark_done_many(keys[1:])
        store.increment_tries(keys[0])
        assert [store[key] for key in keys] == [{"_done": True, "_aborted": False, "_tries": tries}
                                                for tries in (0, -1, -1)]
        own = {"_error": "a key of the user's own, up to format 3"}
        assert store["task 1007"] == {"_done": False, "_aborted": False, "_tries": 0, **own}
        store._check()
    assert faults(path) == []
    with Tracker(path) as store:
        assert [store.tries(key) for key in keys] == [0, -1, -1]
