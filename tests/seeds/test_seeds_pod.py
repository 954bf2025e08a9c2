"""Examples of tastypy's documentation: POD."""

from __future__ import annotations

import inspect

import pytest

import tastypy_fast
from tastypy_fast import POD, SharedPOD, SharedTracker, Tracker

# PersistentOrderedDict


def test_aliases():
    assert tastypy_fast.POD is tastypy_fast.PersistentOrderedDict
    assert tastypy_fast.Tracker is tastypy_fast.ProgressTracker
    assert issubclass(tastypy_fast.ProgressTracker, tastypy_fast.PersistentOrderedDict)
    assert tastypy_fast.SharedPOD is tastypy_fast.SharedPersistentOrderedDict
    assert tastypy_fast.SharedTracker is tastypy_fast.SharedProgressTracker
    assert issubclass(tastypy_fast.SharedProgressTracker, tastypy_fast.SharedPersistentOrderedDict)


FIRST_PROGRAM = """
from tastypy_fast import POD
my_pod = POD('path/to/my.pod')
my_pod['foo'] = 'bar'
exit()
"""

SECOND_PROGRAM = """
from tastypy_fast import POD
my_pod = POD('path/to/my.pod')
print(my_pod['foo'])
"""


def test_data_is_preserved_after_the_program_exits(run_python):
    run_python(FIRST_PROGRAM)
    assert run_python(SECOND_PROGRAM) == "bar\n"


# JSON - general, simple, secure


def test_integer_keys_of_dicts_become_strings():
    my_pod = POD("my.pod")
    my_pod[1] = {1: 1}
    my_pod.sync()
    my_pod.revert()  # do a serialize/deserialize cycle
    assert my_pod[1] == {"1": 1}


def test_list_likes_become_lists_and_dict_likes_dicts():
    from collections import OrderedDict

    my_pod = POD("my.pod")
    my_pod["key"] = (1, OrderedDict(a=(2,)))
    my_pod.sync()
    my_pod.revert()
    assert my_pod["key"] == [1, {"a": [2]}]
    assert type(my_pod["key"][1]) is dict


# Synchronization


def test_changes_of_values_read_by_key_are_synchronized():
    my_pod = POD("my.pod")
    my_pod["key"] = []
    my_pod["key"].append(42)  # GOOD! This will be sync'd!
    my_pod.close()
    assert POD("my.pod")["key"] == [42]


def test_synchronizing_happens_at_1000_changed_values_by_default():
    my_pod = POD("my.pod")
    for number in range(999):
        my_pod[number] = None
    assert len(my_pod.dirty()) == 999
    my_pod[999] = None
    assert my_pod.dirty() == set()
    assert tastypy_fast.DEFAULT_SYNC_AT == tastypy_fast.DEFAULT_FILE_SIZE == 1000


# Can data be lost?


@pytest.mark.parametrize("end", ["", "raise SystemExit(0)", "import sys; sys.exit()"])
def test_dirty_values_are_synchronized_when_the_program_ends(run_python, end):
    run_python(f"from tastypy_fast import POD\nmy_pod = POD('my.pod')\nmy_pod['a'] = []\nmy_pod['a'].append(1)\n{end}")
    assert POD("my.pod")["a"] == [1]


# Can I manually control synchronization?


@pytest.mark.parametrize("cls", [POD, SharedPOD])
def test_manual_control(cls):
    pod = cls("my.pod", sync_at=2)
    pod.hold()
    pod.update(a=[1], b=[2], c=[3])
    assert pod.dirty() == {"a", "b", "c"}
    pod.sync_key("a")
    assert pod.dirty() == {"b", "c"}
    pod.sync()
    assert pod.dirty() == set()
    pod.mark_dirty("b")
    assert pod.dirty() == {"b"}
    pod["a"] = "changed"
    pod["d"] = "new"
    pod.revert()
    assert pod.items() == [("a", [1]), ("b", [2]), ("c", [3])]
    pod.update(a=1, b=2)
    assert pod.dirty() == {"a", "b"}
    pod.unhold()
    assert pod.dirty() == set()


# Opening multiple PODs at same location is safe


def test_pods_open_to_the_same_location_reference_the_same_data():
    one, other = POD("my.pod"), POD("./my.pod")
    one["a"] = [1]
    other["a"].append(2)
    other["b"] = 1
    assert one["a"] == [1, 2]
    assert one.keys() == ["a", "b"]


def test_clone_false_has_isolated_memory():
    one, other = POD("my.pod"), POD("my.pod", clone=False)
    one["a"] = 1
    assert "a" not in other


# PersistentOrderedDict reference


def test_signatures_begin_with_the_documented_arguments():
    def documented(call):
        return [(name, parameter.default) for name, parameter in inspect.signature(call).parameters.items()
                if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]

    common = [("init", {}), ("gzipped", False), ("file_size", 1000), ("sync_at", 1000)]
    assert documented(POD) == [("path", inspect.Parameter.empty), *common, ("clone", True)]
    assert documented(Tracker) == [("path", inspect.Parameter.empty), ("max_tries", 0), *common, ("clone", True)]
    assert documented(SharedPOD) == [("path", inspect.Parameter.empty), *common]
    assert documented(SharedTracker) == [("path", inspect.Parameter.empty), ("max_tries", 0), *common]
    for cls in (Tracker, SharedTracker):
        for method in ("should_do", "should_do_add", "should_try", "should_try_add"):
            assert documented(getattr(cls, method))[1:] == [
                ("key", inspect.Parameter.empty), ("allow_aborted", False)
            ]
        for method in ("todo_items", "todo_keys", "todo_values", "try_items", "try_keys", "try_values"):
            assert documented(getattr(cls, method))[1:] == [("allow_aborted", False)]
        for what in ("done", "not_done", "tried", "not_tried", "aborted", "not_aborted"):
            assert documented(getattr(cls, f"percent_{what}"))[1:] == [("decimals", 2)]


@pytest.mark.parametrize("name", [
    "update", "iteritems", "iterkeys", "itervalues", "items", "keys", "values", "mark_dirty", "dirty", "sync_key",
    "sync", "hold", "unhold", "revert",
])
def test_pod_has(name):
    assert callable(getattr(POD, name))


def test_init_is_equivalent_to_update():
    class Implementing:
        def iteritems(self):
            return iter([("b", 2), ("a", 1)])

    assert POD("1.pod", init=Implementing()).items() == [("b", 2), ("a", 1)]
    assert POD("2.pod", init=[("b", 2), ("a", 1)]).items() == [("b", 2), ("a", 1)]
    assert POD("2.pod", init=iter([("a", 3)])).items() == [("b", 2), ("a", 3)]


def test_arguments_of_update_closer_to_the_right_take_precedence():
    pod = POD("my.pod")
    pod.update([("a", 1), ("b", 1), ("c", 1)], {"b": 2, "c": 2}, c=3)
    assert pod.items() == [("a", 1), ("b", 2), ("c", 3)]


def test_iterating_yields_keys_in_the_order_in_which_they_were_added():
    pod = POD("my.pod")
    for key in ("z", "a", "m"):
        pod[key] = key.upper()
    pod["z"] = "again"
    assert list(pod) == list(pod.iterkeys()) == pod.keys() == ["z", "a", "m"]
    assert list(pod.itervalues()) == pod.values() == ["again", "A", "M"]
    assert list(pod.iteritems()) == pod.items() == [("z", "again"), ("a", "A"), ("m", "M")]
    assert isinstance(pod.items(), list)
    assert iter(pod.iteritems())
