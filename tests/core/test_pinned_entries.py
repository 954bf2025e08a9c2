"""Values that were read by their keys are watched: changes inside them are saved."""

from __future__ import annotations

import threading

import pytest

pytestmark = [pytest.mark.all_classes, pytest.mark.with_log]

CHANGES = {
    "append": lambda value: value["l"].append(2),
    "set an item": lambda value: value.__setitem__("new", 1),
    "set deep": lambda value: value["d"]["x"].__setitem__(0, {"y": None}),
    "augment": lambda value: value["l"].__iadd__([3, 4]),
    "delete": lambda value: value.pop("l"),
    "slice": lambda value: value["l"].__setitem__(slice(None), []),
    "clear": lambda value: value.clear(),
    "same length": lambda value: value["l"].__setitem__(0, 2),
    "type only": lambda value: value["l"].__setitem__(0, True),
    "order only": lambda value: value.__setitem__("l", value.pop("l")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_value_is_dirty_and_saved(private_kit, nested, data, change):
    expected = {"l": [1], "d": {"x": [0]}}
    change(expected)
    change(data())
    assert nested.dirty() == {"k"}
    assert repr(data()) == repr(expected)
    nested.sync()
    assert nested.dirty() == set()
    assert repr(private_kit.plain(private_kit.reopened(nested)["k"])) == repr(expected)


def test_change_that_was_undone_is_not_dirty(nested, data):
    data()["l"].append(2)
    data()["l"].pop()
    assert nested.dirty() == set()


@pytest.mark.parametrize("read", ["__getitem__", "get", "setdefault"])
def test_every_read_by_key_watches_the_value(private_kit, nested, read):
    private_kit.plain(getattr(nested, read)("k"))["l"].append(2)
    nested.sync()
    nested.revert()
    assert private_kit.plain(nested["k"])["l"] == [1, 2]


def test_value_set_by_setdefault_is_watched(private_kit, nested):
    private_kit.plain(nested.setdefault("new", private_kit.value([])))
    private_kit.plain(nested.setdefault("new", private_kit.value([]))).append(1)
    assert private_kit.plain(private_kit.reopened(nested)["new"]) == [1]


def test_reading_a_key_returns_the_same_object_between_syncs(nested, data):
    assert data() is data()
    data()["l"].append(2)
    assert data()["l"] == [1, 2]


def test_iterators_see_changes_of_values_read_by_key(private_kit, nested, data):
    data()["l"].append(2)
    assert private_kit.contents(nested)["k"]["l"] == [1, 2]
    assert private_kit.plain(nested.values()[0])["l"] == [1, 2]


def test_revert_drops_changes_of_nested_values(nested, data):
    data()["l"].append(2)
    nested.revert()
    assert data() == {"l": [1], "d": {"x": [0]}}
    assert nested.dirty() == set()


def test_sync_key_saves_only_the_changed_value_of_its_key(nested, data):
    data()["l"].append(2)
    data("other").append(6)
    nested.sync_key("k")
    assert nested.dirty() == {"other"}
    nested.revert()
    assert data()["l"] == [1, 2]
    assert data("other") == [5]


@pytest.mark.parametrize("act", ["sync", "sync_key", "many reads", "many writes"])
@pytest.mark.parametrize("deep", [False, True])
def test_change_that_completes_after_a_sync_is_saved(private_kit, act, deep):
    """``pod[k]['l'].append(f(pod))``, where ``f`` makes the store sync before the append is done."""
    kit = private_kit
    store = kit.open(init=kit.pairs({"k": {"l": [], "d": {}}}), sync_at=5)
    store.update(kit.pairs({number: [number] for number in range(30)}))
    store.sync()

    def work():
        if act == "sync":
            store.sync()
        elif act == "sync_key":
            store.sync_key("k")
        elif act == "many reads":
            assert [kit.plain(store[number]) for number in range(30)] == [[number] for number in range(30)]
        else:
            store.update(kit.pairs({100 + number: [] for number in range(30)}))
        return "done"

    if deep:
        kit.plain(store["k"])["l"].append(work())
        kit.plain(store["k"])["l"].append(work())
    else:
        kit.plain(store["k"])[work()] = 1
        kit.plain(store["k"])["l"] = ["done", work()]
    assert kit.plain(kit.reopened(store)["k"])["l"] == ["done", "done"]


def test_many_values_read_and_changed_are_all_saved(private_kit):
    kit = private_kit
    store = kit.open(init=kit.pairs({number: [] for number in range(200)}), sync_at=7)
    store.sync()
    for times in range(3):
        for number in range(200):
            kit.plain(store[number]).append(times)
    assert kit.contents(kit.reopened(store)) == {number: [0, 1, 2] for number in range(200)}


def test_held_value_stays_watched_after_a_sync(private_kit, nested, data):
    value, inner = data(), data()["d"]["x"]
    nested.sync()
    value["l"].append(2)
    assert nested.dirty() == {"k"}
    nested.sync()
    inner.append(1)
    nested.sync()
    assert private_kit.plain(private_kit.reopened(nested)["k"]) == {"l": [1, 2], "d": {"x": [0, 1]}}


def test_value_that_another_thread_holds_is_saved(private_kit, nested, data):
    holds, synced = threading.Event(), threading.Event()

    def work():
        inner = data()["d"]["x"]
        holds.set()
        assert synced.wait(30)
        inner.append("from the thread")

    thread = threading.Thread(target=work)
    thread.start()
    assert holds.wait(30)
    nested.sync()
    synced.set()
    thread.join()
    assert private_kit.plain(private_kit.reopened(nested)["k"])["d"]["x"] == [0, "from the thread"]


def test_assignment_stops_watching_the_old_value(private_kit, nested, data):
    old = data()
    nested["k"] = private_kit.value(["new"])
    old["l"].append("lost, as in any dict")
    assert data() == ["new"]
    assert private_kit.plain(private_kit.reopened(nested)["k"]) == ["new"]


def test_deleted_value_is_not_watched(private_kit, nested, data):
    old = data()
    del nested["k"]
    old["l"].append(2)
    assert nested.dirty() == {"k"}
    assert "k" not in private_kit.reopened(nested)


def test_popped_value_is_not_watched(private_kit, nested, data):
    data()["l"].append(2)
    value = private_kit.plain(nested.pop("k"))
    assert value["l"] == [1, 2]
    nested["k"] = private_kit.value([])
    value["l"].append(3)
    assert data() == []
