"""Several instances on one path: shared memory, options, clone=False, conflicting writes."""

from __future__ import annotations

import pytest

from tastypy_fast import (
    CalledClosedTrackerError,
    StoreConflictError,
)

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]


def test_instances_on_one_path_share_their_memory(private_kit):
    kit = private_kit
    one, other = kit.open(), kit.open()
    one["a"] = kit.value([1])
    assert kit.plain(other["a"]) == [1]
    kit.plain(other["a"]).append(2)
    assert kit.plain(one["a"]) == [1, 2]
    assert one.dirty() == other.dirty() == {"a"}
    del other["a"]
    assert "a" not in one
    assert len(one) == 0
    one["b"] = kit.value(1)
    other.revert()
    assert len(one) == 0


def test_instances_find_each_other_by_the_resolved_path(private_kit, monkeypatch):
    kit = private_kit
    one = kit.open()
    (kit.folder / "link").symlink_to(kit.folder / "store")
    monkeypatch.chdir(kit.folder)
    one["a"] = kit.value(1)
    for path in (kit.folder / "link", "store", "./link/../store", kit.folder / "." / "store"):
        with kit.cls(path) as other:
            assert "a" in other
            assert other.path == one.path


def test_closing_one_instance_leaves_the_other_open(private_kit):
    kit = private_kit
    one, other = kit.open(), kit.open()
    one["a"] = kit.value(1)
    one.close()
    assert other.dirty() == set()
    other["b"] = kit.value(2)
    assert other.keys() == ["a", "b"]
    with pytest.raises(CalledClosedTrackerError):
        one["a"]


def test_each_instance_has_its_own_sync_at_and_hold(private_kit):
    kit = private_kit
    one, other = kit.open(sync_at=2), kit.open(sync_at=100)
    for number in range(5):
        other[number] = kit.value(number)
    assert len(one.dirty()) == 5
    one[5] = kit.value(5)
    assert one.dirty() == set()
    one.hold()
    one.update(kit.pairs(dict.fromkeys(range(5), 0)))
    assert len(one.dirty()) == 5
    with kit.open(sync_at=1) as third:
        third[0] = kit.value(1)
        assert one.dirty() == set()


@pytest.mark.parametrize("options", [{"gzipped": True}, {"file_size": 10}, {"mode": "r"}, {"durability": "full"}])
@pytest.mark.parametrize("clone", [False, True])
def test_instances_with_conflicting_options_are_refused(private_kit, options, clone):
    kit = private_kit
    store = kit.open()
    (name, _), = options.items()
    with pytest.raises(StoreConflictError, match=name) as caught:
        kit.open(**options, clone=clone)
    assert isinstance(caught.value, ValueError)
    store["a"] = kit.value(1)
    assert "a" in kit.reopened(store)


@pytest.fixture
def separate(private_kit):
    """Two instances on one path with separate memory, and three keys on disk."""
    one = private_kit.open(init=private_kit.pairs({"a": [1], "b": [2], "c": [3]}), clone=False)
    one.sync()
    return one, private_kit.open(clone=False)


def test_instances_with_clone_false_see_each_others_syncs_only(private_kit, separate):
    kit, (one, other) = private_kit, separate
    one["d"] = kit.value(4)
    kit.plain(one["a"]).append("x")
    del one["b"]
    assert kit.contents(other) == {"a": [1], "b": [2], "c": [3]}
    assert other.dirty() == set()
    one.sync()
    assert kit.contents(other) == {"a": [1, "x"], "c": [3], "d": 4}
    assert len(other) == 3
    assert "b" not in other
    assert kit.plain(other["d"]) == 4


def test_instance_with_clone_false_does_not_share_memory_with_others(private_kit):
    kit = private_kit
    shared, separate = kit.open(), kit.open(clone=False)
    shared["a"] = kit.value(1)
    separate["b"] = kit.value(2)
    assert kit.open().keys() == ["a"]
    assert separate.keys() == ["b"]
    separate.sync()
    assert shared.keys() == ["b", "a"] or shared.keys() == ["a", "b"]
    shared.sync()
    assert sorted(separate.keys()) == ["a", "b"]


def test_changes_of_both_instances_are_saved(private_kit, separate):
    kit, (one, other) = private_kit, separate
    for number in range(0, 40, 2):
        one[number] = kit.value("one")
        other[number + 1] = kit.value("other")
    one.sync()
    other.sync()
    assert len(one) == len(other) == 43
    assert one.keys() == other.keys()
    assert set(one) == {"a", "b", "c", *range(40)}
    one.close()
    assert all(kit.plain(other[number]) == ("other" if number % 2 else "one") for number in range(40))


def test_last_sync_of_one_key_wins(private_kit, separate):
    kit, (one, other) = private_kit, separate
    for key in ("a", "new"):
        one[key] = kit.value("one")
        other[key] = kit.value("other")
    one.sync()
    assert kit.plain(one["new"]) == "one"
    assert kit.plain(other["new"]) == "other"
    other.sync()
    for key in ("a", "new"):
        assert kit.plain(one[key]) == kit.plain(other[key]) == "other"
    assert one.keys() == other.keys() == ["a", "b", "c", "new"]


@pytest.mark.parametrize("held", [False, True], ids=["", "held past a sync"])
@pytest.mark.parametrize("way", ["assigned", "changed by keying"])
def test_key_deleted_by_one_and_changed_by_the_other_exists_after_both_syncs(private_kit, separate, way, held):
    kit, (one, other) = private_kit, separate
    if held:
        _value = kit.plain(other["a"])
        other["b"] = kit.value("new")
        other.sync()
    del one["a"]
    if way == "assigned":
        other["a"] = kit.value([1, "kept"])
    else:
        kit.plain(other["a"]).append("kept")
    one.sync()
    assert "a" not in one
    assert other.dirty() == {"a"}
    assert kit.plain(other["a"]) == [1, "kept"]
    assert other.keys() == ["b", "c", "a"]
    other._check()
    other.sync()
    assert kit.plain(one["a"]) == [1, "kept"]
    assert len(one) == len(other) == 3


def test_key_deleted_by_both_is_deleted(private_kit, separate):
    one, other = separate
    del one["a"], other["a"]
    one.sync()
    assert len(other) == 2
    other.sync()
    assert one.keys() == other.keys() == ["b", "c"]
    assert other.dirty() == set()


def test_key_read_by_one_and_deleted_by_the_other_is_deleted(private_kit, separate):
    kit, (one, other) = private_kit, separate
    assert kit.plain(other["a"]) == [1]
    del one["a"]
    one.sync()
    assert "a" not in other
    assert len(other) == 2
    with pytest.raises(KeyError):
        other["a"]
    other.sync()
    assert "a" not in one


@pytest.mark.parametrize("save", [lambda store: store.sync(), lambda store: store.sync_key("new")],
                         ids=["sync", "sync_key"])
def test_change_of_a_key_that_another_instance_saved_by_sync_key_is_visible_to_it(private_kit, separate, save):
    kit, (one, other) = private_kit, separate
    other["new"] = kit.value("other")
    other.sync_key("new")
    one["new"] = kit.value("one")
    save(one)
    assert kit.plain(other["new"]) == "one"
    assert kit.contents(other)["new"] == "one"
    other.sync()
    assert kit.plain(one["new"]) == "one"


def test_loop_sees_syncs_of_the_other_instance(private_kit, separate):
    kit, (one, other) = private_kit, separate
    seen = []
    for key in one:
        seen.append(key)
        if key == "a":
            other["d"] = kit.value(4)
            del other["b"]
            other.sync()
    assert seen == ["a", "c", "d"]


def test_revert_of_one_instance_does_not_change_the_other(private_kit, separate):
    kit, (one, other) = private_kit, separate
    one["d"] = kit.value(1)
    other["e"] = kit.value(2)
    one.revert()
    other.sync()
    assert one.keys() == other.keys() == ["a", "b", "c", "e"]
