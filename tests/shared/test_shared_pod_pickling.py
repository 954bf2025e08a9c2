"""Pickles and copies of shared stores: the path and the options, no data."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import pytest

from tastypy_fast import (
    SharedPOD,
    SharedTracker,
    StoreConflictError,
)
from tests.support.shared import ABC
from tests.support.stores import is_tracker

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

OPTIONS = {"gzipped": True, "file_size": 7, "sync_at": 3, "durability": "full"}
DUPLICATES = {
    **{f"pickle {number}": partial(lambda number, store: pickle.loads(pickle.dumps(store, number)), number)
       for number in range(pickle.HIGHEST_PROTOCOL + 1)},
    "copy": copy.copy, "deepcopy": copy.deepcopy, "in a list": lambda store: copy.deepcopy([store, "x"])[0],
}


@pytest.mark.parametrize("duplicate", DUPLICATES.values(), ids=DUPLICATES)
def test_copied_instance_has_the_same_store_and_options(kit, duplicate):
    more = {"max_tries": 5} if is_tracker(kit.cls) else {}
    store = kit.open(init=kit.pairs(ABC), **OPTIONS, **more)
    with duplicate(store) as other:
        assert other is not store
        assert type(other) is type(store)
        assert other.path == store.path
        assert {name: getattr(other, name) for name in ("gzipped", "file_size", "durability", *more)} == {
            name: value for name, value in {**OPTIONS, **more}.items() if name != "sync_at"
        }
        store.sync()
        other["d"] = other["e"] = kit.value(4)
        assert store.dirty() == {"d", "e"}
        other["f"] = kit.value(4)
        assert store.dirty() == set()
        with store.locked():
            store["g"] = kit.value(5)
            assert "g" in other
            assert len(duplicate(other)) == len(store)
        other.set.clear()
        assert len(store) == 0
    assert not store.closed


def test_pickle_holds_the_path_and_no_data(kit):
    store = kit.open(init=kit.pairs({"a secret": "no less a secret" * 1000}))
    data = pickle.dumps(store)
    assert b"secret" not in data
    assert len(data) < 1000
    store.close()
    with pickle.loads(data) as again:
        assert kit.contents(again) == {"a secret": "no less a secret" * 1000}


def test_pickle_of_a_closed_store_opens_it(kit, abc):
    abc.close()
    with pickle.loads(pickle.dumps(abc)) as again:
        assert kit.contents(again) == ABC


def test_pickle_with_conflicting_options_is_refused(kit, abc):
    data = pickle.dumps(abc)
    abc.close()
    with kit.open(durability="full"), pytest.raises(StoreConflictError, match="durability"):
        pickle.loads(data)


class Mine(SharedPOD):
    """A subclass that a pickle can name."""

    def __setitem__(self, key, value):
        super().__setitem__(key.lower(), value)


def test_pickled_subclass_keeps_its_class(tmp_path):
    with Mine(tmp_path / "store") as mine, pickle.loads(pickle.dumps(mine)) as other:
        other["A"] = 1
        assert type(other) is Mine
        assert mine.items() == [("a", 1)]


class WithMore(SharedTracker):
    """A class of the user with arguments and attributes of its own."""

    def __init__(self, path, extra):
        super().__init__(path, max_tries=7)
        self.extra = extra


def test_pickled_subclass_keeps_its_own_attributes(tmp_path):
    with WithMore(tmp_path / "store", extra=[5]) as store, pickle.loads(pickle.dumps(store)) as other:
        store.add("a")
        assert (type(other), other.extra, other.max_tries, other.keys()) == (WithMore, [5], 7, ["a"])


@pytest.mark.parametrize("method", ["todo_items", "todo_values", "aborted_items", "aborted_values", "setdefault"])
def test_docstrings_of_shared_trackers_do_not_mention_watched_values(method):
    assert "watched" not in getattr(SharedTracker, method).__doc__
