"""The format and the sizes of a store, and the sequence number of a key."""

from __future__ import annotations

import os

import pytest

from tastypy_fast._inspect.store_info import find_seq, read_store_info

pytestmark = pytest.mark.all_classes


def test_deleting_increases_the_free_space(kit):
    with kit.open() as store:
        store.update((number, kit.value("x" * 1000)) for number in range(2000))
        store.sync()
        before = read_store_info(store._store)
        store.clear()
    with kit.open() as store:
        after = read_store_info(store._store)
        assert before.free < 1_000_000
        assert 2_000_000 < after.free < os.path.getsize(os.path.join(store.path, "data.mdb")) <= after.bytes


def test_file_size_is_that_of_the_last_opening(kit):
    kit.open(file_size=50).close()
    with kit.open(file_size=60) as store:
        assert read_store_info(store._store).file_size == 60


def test_sequence_numbers_follow_the_order_and_are_not_used_again(kit):
    with kit.open(init=kit.pairs({"a": 1, "b": 2})) as store:
        store.sync()
        first = [find_seq(store._store, key) for key in "abc"]
        assert first == [0, 1, None]
        del store["b"]
        store["b"] = kit.value(3)
        store.sync()
        assert find_seq(store._store, "b") == 2
