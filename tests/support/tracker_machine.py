"""Random operations on a tracker and on a plain dict of tasks."""

from __future__ import annotations

import copy

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tastypy_fast import (
    DuplicateKeyError,
    ProgressTracker,
)
from tests.support.machines import STATUS, Walk, change, changes, instances, keys, listed, text_of, values
from tests.support.pod_machine import PodMachine

status_methods = st.sampled_from([
    "mark_done", "mark_not_done", "abort", "unabort", "increment_tries", "decrement_tries", "reset_tries",
])


class TrackerMachine(PodMachine):
    """The same machine for a tracker: values are tasks, and their statuses are changed in every way."""

    cls = ProgressTracker

    def options(self):
        return {**super().options(), "max_tries": self.max_tries}

    def first(self, number):
        return {"_done": number % 3 == 1, "_aborted": number % 4 == 2, "_tries": number % 5, "x": [number]}

    def given(self, value):
        return copy.deepcopy(value) if isinstance(value, dict) else {"data": copy.deepcopy(value)}

    def stored(self, value):
        return {"_done": False, "_aborted": False, "_tries": 0, **copy.deepcopy(value)}

    def mix_in(self, key, value):
        if key in self.now:
            self.now[key].value.update(copy.deepcopy(value))
        else:
            self.add(key, value)

    def open_task(self, task, allow_aborted=False):
        return (not task["_done"] and (allow_aborted or not task["_aborted"])
                and (not self.max_tries or task["_tries"] < self.max_tries))

    # Adding

    @rule(which=instances, key=keys, if_absent=st.booleans())
    def add_task(self, which, key, if_absent):
        missing = {key} - self.now.keys()
        with self.step(which, *missing) as store:
            if missing:
                self.add(key, {})
                (store.add_if_absent if if_absent else store.add)(key)
            elif if_absent:
                store.add_if_absent(key)
            else:
                with pytest.raises(DuplicateKeyError):
                    store.add(key)

    @rule(which=instances, some=st.lists(keys, max_size=8))
    def add_many_tasks(self, which, some):
        # A hold is needed, because a sync may follow each chunk of the tasks.
        index = which % len(self.stores)
        store = self.stores[index]
        store.hold()
        with self.step(which, *some):
            store.add_many_if_absent(iter(some))
            for key in some:
                if key not in self.now:
                    self.add(key, {})
            self.held[index], held = True, self.held[index]
        self.held[index] = held
        if not held:
            with self.step(which):
                store.unhold()

    # Status

    @rule(which=instances, key=keys, status=st.tuples(st.booleans(), st.booleans(), st.integers(-2, 4)), value=values)
    def assign_with_status(self, which, key, status, value):
        task = {**self.given(value), **dict(zip(STATUS, status, strict=True))}
        with self.step(which, key) as store:
            store[key] = task
            self.put(key, task)

    @rule(which=instances, key=keys, method=status_methods)
    def change_status(self, which, key, method):
        with self.step(which, *self.if_there(key), marks=False) as store:
            if key not in self.now:
                with pytest.raises(KeyError):
                    getattr(store, method)(key)
                return
            getattr(store, method)(key)
            task = self.now[key].value
            if method in ("mark_done", "reset_tries"):
                task.pop("_error", None)
            task.update({
                "mark_done": {"_done": True}, "mark_not_done": {"_done": False}, "abort": {"_aborted": True},
                "unabort": {"_aborted": False}, "increment_tries": {"_tries": task["_tries"] + 1},
                "decrement_tries": {"_tries": task["_tries"] - 1}, "reset_tries": {"_tries": 0},
            }[method])

    @rule(which=instances, key=keys, message=st.sampled_from("xy"))
    def record_error(self, which, key, message):
        with self.step(which, *self.if_there(key)) as store:
            if key not in self.now:
                with pytest.raises(KeyError):
                    store.record_error(key, message)
                return
            store._record_error(key, {"message": message})
            task = self.now[key].value
            task["_error"] = {"message": message, "try": task["_tries"]}

    @rule(which=instances, key=keys, name=st.sampled_from(STATUS), flag=st.booleans(), tries=st.integers(-2, 5))
    def change_status_by_keying(self, which, key, name, flag, tries):
        if key not in self.now:
            return
        with self.step(which) as store:
            task = self.value_at(store, key)
        with self.step(which):
            task[name] = self.now[key].value[name] = tries if name == "_tries" else flag
            del task

    @precondition(lambda self: self.references)
    @rule(which=instances, number=st.integers(0, 50), name=st.sampled_from(STATUS), flag=st.booleans())
    def change_status_by_reference(self, which, number, name, flag):
        key, task, model = self.references[number % len(self.references)]
        if key in self.now and self.now[key].value is model:
            with self.step_by_reference(which):
                task[name] = model[name] = int(flag) if name == "_tries" else flag

    @rule(which=instances, key=keys)
    def ask_for_status(self, which, key):
        with self.step(which) as store:
            if key in self.now:
                task = self.now[key].value
                assert (store.done(key), store.aborted(key), store.tries(key)) == tuple(task[name] for name in STATUS)
            else:
                assert store.done(key) is False
                for ask in (store.aborted, store.tries, store.should_do, store.should_try):
                    with pytest.raises(KeyError):
                        ask(key)

    @rule(which=instances, key=keys, allow_aborted=st.booleans(),
          gate=st.sampled_from(["should_do", "should_do_add", "should_try", "should_try_add"]))
    def gate(self, which, key, gate, allow_aborted):
        if key not in self.now and not gate.endswith("add"):
            return
        is_new = key not in self.now
        opens = is_new or self.open_task(self.now[key].value, allow_aborted)
        changed = [key] * (is_new or (opens and "try" in gate))
        with self.step(which, *changed, marks=False) as store:
            if is_new:
                self.add(key, {})
            assert getattr(store, gate)(key, allow_aborted) is opens
            if opens and "try" in gate:
                self.now[key].value["_tries"] += 1

    # Iterating and counting

    @rule(which=instances, kind=st.sampled_from(["keys", "values", "items"]), allow_aborted=st.booleans(),
          family=st.sampled_from(["todo", "try", "aborted"]))
    def start_a_walk_over_tasks(self, which, kind, family, allow_aborted):
        start = getattr(self.stores[which % len(self.stores)], f"{family}_{kind}")
        if family == "aborted":
            self.walk(which, start(), kind, wants=lambda task: task["_aborted"])
        else:
            self.walk(which, start(allow_aborted), kind, attempt=family == "try",
                      wants=lambda task: self.open_task(task, allow_aborted))

    @rule(which=instances, family=st.sampled_from(["todo", "try", "aborted"]),
          some=st.lists(st.lists(st.tuples(keys, status_methods), max_size=8), max_size=4))
    def walk_while_statuses_change(self, which, family, some):
        self.start_a_walk_over_tasks(which, "keys", family, False)
        for status_changes in some:
            self.go_one_further(self.walks[-1])
            for key, method in status_changes:
                self.change_status(which, key, method)

    @rule(which=instances, **changes)
    def change_what_a_walk_hands_out(self, which, deep, how, part):
        found = Walk(which, None, "items", wants=self.open_task).next_in(self.now)
        if found is not None:
            with self.step(which) as store:
                key, task = next(store.todo_items())
                assert (key, text_of(task)) == (found[1], text_of(self.now[key].value))
            with self.step(which):
                change(task, deep, how, part)
                change(self.now[key].value, deep, how, part)
                del task

    def check_reads(self, store):
        super().check_reads(store)
        tasks = [item.value for item in self.now.values()]
        assert store.num_done() == sum(task["_done"] for task in tasks)
        assert store.num_aborted() == sum(task["_aborted"] for task in tasks)
        assert store.num_tried() == sum(task["_tries"] > 0 for task in tasks)
        in_order = [(key, self.now[key].value) for key, _ in listed(self.now)]
        for allow_aborted in (False, True):
            assert list(store.todo_keys(allow_aborted)) == [
                key for key, task in in_order if self.open_task(task, allow_aborted)
            ]
        assert list(store.aborted_keys()) == [key for key, task in in_order if task["_aborted"]]
