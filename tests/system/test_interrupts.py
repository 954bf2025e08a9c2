"""A KeyboardInterrupt at any line leaves the store consistent."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tastypy_fast import POD, SharedPOD, SharedTracker, Tracker
from tests.support.stores import changing

pytestmark = [
    pytest.mark.all_classes,
    pytest.mark.with_log,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


class InterruptAt:
    """A trace function that raises KeyboardInterrupt at the n-th line that runs inside the package."""

    def __init__(self, number):
        self.left = number
        self.where = None

    def __call__(self, frame, event, argument):
        return self.in_package if "tastypy_fast" in frame.f_globals.get("__name__", "") else None

    def in_package(self, frame, event, argument):
        self.left -= 1
        if self.left == 0:
            self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            raise KeyboardInterrupt
        return self.in_package


STEPS = """
    put a, put b, put c, sync -, delete b, change c, put d, put b, delete d, sync -,
    len -, change a, items -, put b, delete a, put a, sync -
"""
TASK_STEPS = """
    add a, add b, try a, sync -, try b, done b, change a, mix c, gate d, gate a, sync -,
    done c, mix a, delete b, add b, by key d, next -, count -, delete d, gate d, sync -
"""


SHARED_STEPS = "put a, sync -, atom b, block c, change a, len -, delete a, atom c, items -, sync -"
CLAIM_STEPS = "add a, next -, gate b, release b, sync -, next -, done a, atom b, next -, delete b, count -"


def do(store, step, key, number):
    if step == "put":
        store[key] = {"n": number}
    elif step == "change":
        changing(store)[key]["n"] = number
    elif step == "delete":
        del store[key]
    elif step == "sync":
        store.sync()
    elif step == "len":
        len(store)
    elif step == "items":
        store.items()
    elif step == "add":
        store.add(key)
    elif step == "try":
        store.increment_tries(key)
    elif step == "done":
        store.mark_done(key)
    elif step == "mix":
        store.update({key: {"n": number}})
    elif step == "gate":
        store.should_try_add(key)
    elif step == "by":
        changing(store)[key]["_done"] = True
    elif step == "next":
        loop = store.try_keys()
        next(loop)
        return loop
    elif step == "count":
        store.num_tried()
    elif step == "atom":
        with store.transaction():
            store["a"] = {"n": number}
            store.set["a"]["n"] += 1
            store[key] = {"n": number + 1}
            store["a"] = {"n": number + 1}
    elif step == "block":
        # An interrupt in it leaves the changes up to then.
        with store.locked():
            store[key] = {"n": number}
    elif step == "release":
        store.release(key)
    return None


def changed(model, step, key, number):
    """The model (number and status of each key) after a step."""
    model = dict(model)
    n, done, tries = model.get(key, (None, False, 0))
    if step in ("put", "change", "mix"):
        model[key] = number, done, tries
    elif step == "delete":
        del model[key]
    elif step == "add":
        model[key] = n, done, tries
    elif step in ("try", "gate"):
        model[key] = n, done, tries + (not done)
    elif step in ("done", "by"):
        model[key] = n, True, tries
    elif step == "atom":
        model["a"] = model[key] = number + 1, False, 0
    elif step == "block":
        model[key] = number, False, 0
    elif step == "next":
        first = next(key for key in model if not model[key][1])
        return changed(model, "try", first, number)
    return model


def content(store):
    return [
        (key, (value.get("n"), value.get("_done", False), value.get("_tries", 0))) for key, value in store.iteritems()
    ]


@pytest.mark.parametrize(
    ("cls", "steps", "sync_at"),
    [
        (POD, STEPS, 2), (POD, STEPS, 1000), (Tracker, STEPS, 1000),
        pytest.param(Tracker, TASK_STEPS, 2, marks=pytest.mark.storm), (Tracker, TASK_STEPS, 99),
        (SharedPOD, SHARED_STEPS, 2), (SharedPOD, SHARED_STEPS, 99),
        pytest.param(SharedTracker, CLAIM_STEPS, 2, marks=pytest.mark.storm),
    ],
    ids=["pod-2", "pod-1000", "tracker-1000", "tasks-2", "tasks-99", "shared-2", "shared-99", "claims-2"],
)
# An interrupt inside __del__ is reported by Python.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupt_at_any_line_leaves_the_store_consistent(tmp_path, cls, steps, sync_at):
    """The interrupted step is done or not done, and the store works afterwards."""
    before_tracing = sys.gettrace()
    for number in range(1, 10**6):
        path = tmp_path / str(number)
        store = cls(path, sync_at=sync_at, durability="process")
        interrupt = InterruptAt(number)
        # An exception while a loop is freed could not be raised.
        after, loops = {}, []
        for count, line in enumerate(steps.split(",")):
            step, key = line.split()[0], line.split()[-1]
            before, after = after, changed(after, step, key, count)
            sys.settrace(interrupt)
            try:
                loops.append(do(store, step, key, count))
            except KeyboardInterrupt:
                break
            finally:
                sys.settrace(before_tracing)
            loops.clear()
        if interrupt.where is None:
            # The line was never reached, so all lines have been interrupted.
            break
        where = f"interrupt {number} in {step} at {interrupt.where}"
        store._check()
        found = content(store)
        assert found in (list(before.items()), list(after.items())), where
        assert len(store) == len(found), where
        if cls in (SharedPOD, SharedTracker):
            # All locks were released.
            with ThreadPoolExecutor(1) as executor:
                executor.submit(do, store, "put", "after", -1).result(30)
        do(store, "put", "after", -1)
        store.close()
        with cls(path) as again:
            again._check()
            assert content(again) == [*found, ("after", (-1, False, 0))], where
    assert content(store) == list(after.items())
    assert number > 50
    store.close()


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("walk", [iter, reversed], ids=["forwards", "backwards"])
def test_interrupt_at_any_line_of_a_loop_over_keys_skips_only_deleted_keys(any_class, tmp_path, walk, large):
    """No other key is skipped, and the iterator can be continued."""
    before_tracing = sys.gettrace()
    for number in range(1, 10**6):
        with any_class(tmp_path / str(number), durability="process") as store:
            store.update((key, {"x": "x" * 10_000 * large}) for key in range(10))
            store.sync()
            keys = walk(store)
            begun = next(keys)
            del store[5]
            store.sync()
            interrupt = InterruptAt(number)
            sys.settrace(interrupt)
            rest = []
            try:
                rest.append(next(keys))
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(before_tracing)
            rest += keys
            assert [begun, *rest] == [key for key in walk(range(10)) if key != 5], interrupt.where
        if interrupt.where is None:
            break
    # The iterators of the shared classes are compiled completely.
    assert number > 5 or any_class in (SharedPOD, SharedTracker)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("sync_at", [1, 1000], ids=["flushes after each commit", "does not flush"])
def test_interrupt_at_any_line_of_claiming_loses_no_task(tmp_path, batch, sync_at):
    """After the commit, the task is claimed. The loop yields it when it is continued."""
    before_tracing = sys.gettrace()
    for number in range(1, 10**6):
        with SharedTracker(tmp_path / str(number), sync_at=sync_at) as tracker:
            tracker.add_many(range(7))
            keys = tracker.try_keys(batch=batch)
            found = [next(keys) for _ in range(batch)]
            tracker._store.files_checked = tracker._store.transaction.files_checked = 0
            interrupt = InterruptAt(number)
            sys.settrace(interrupt)
            try:
                found.append(next(keys))
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(before_tracing)
            found += keys
            assert found == list(range(7)), interrupt.where
            assert [tracker.tries(key) for key in found] == [1] * 7, interrupt.where
        if interrupt.where is None:
            break
    assert number > 5


@pytest.mark.parametrize("walk", [iter, reversed], ids=["forwards", "backwards"])
def test_interrupt_while_files_are_checked_skips_no_key(any_class, tmp_path, walk):
    """Once a second, a reader of another process's writes checks the files before the next element."""
    before_tracing = sys.gettrace()
    for number in range(1, 10**6):
        with any_class(tmp_path / str(number), durability="process") as store:
            store.update((key, {"x": 1}) for key in range(4))
            store.sync()
            keys = walk(store)
            begun = next(keys)
            store._store.files_checked = 0
            interrupt = InterruptAt(number)
            sys.settrace(interrupt)
            rest = []
            try:
                rest.append(next(keys))
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(before_tracing)
            rest += keys
            assert [begun, *rest] == list(walk(range(4))), interrupt.where
        if interrupt.where is None:
            break
