"""Several instances in one process: what they share."""

from __future__ import annotations

import pytest

from tastypy_fast import (
    CalledClosedTrackerError,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_instances_on_one_path_share_unsynced_data(any_class, path):
    first, second = any_class(path), any_class(path)
    first["a"] = {"x": []}
    second["a"]["x"].append(1)
    first["a"]["x"].append(2)
    assert second["a"]["x"] == [1, 2]
    assert first.dirty() == second.dirty() == {"a"}
    second.sync()
    assert first.dirty() == set()
    first.close()
    second.close()


def test_close_of_one_instance_keeps_the_other_open(any_class, path):
    first, second = any_class(path), any_class(path)
    first["a"] = {"x": 1}
    first.close()
    with pytest.raises(CalledClosedTrackerError):
        first["a"]
    assert second["a"]["x"] == 1
    second["b"] = {"x": 2}
    third = any_class(path)
    second.close()
    assert third.keys() == ["a", "b"]
    third.close()
    with pytest.raises(CalledClosedTrackerError):
        third.keys()
    with any_class(path, mode="r") as reader:
        assert reader.keys() == ["a", "b"]


def test_each_instance_has_its_own_sync_at_and_hold(any_class, path):
    with any_class(path, sync_at=3) as often, any_class(path, sync_at=1000) as seldom:
        seldom.update((number, {"x": 1}) for number in range(10))
        assert len(seldom.dirty()) == 10
        often.hold()
        often["a"] = {}
        assert len(seldom.dirty()) == 11
        seldom.unhold()
        assert len(seldom.dirty()) == 11
        often.unhold()
        assert seldom.dirty() == set()


def test_instance_with_clone_false_sees_synced_data_only(any_class, path):
    with any_class(path) as first, any_class(path, clone=False) as second:
        first["a"] = {"x": 1}
        assert "a" not in second
        first.sync()
        assert second["a"]["x"] == 1
        second["a"]["x"] = 2
        second["b"] = {"x": 3}
        assert first["a"]["x"] == 1
        second.sync()
        assert first["a"]["x"] == 2
        assert first.keys() == second.keys() == ["a", "b"]
