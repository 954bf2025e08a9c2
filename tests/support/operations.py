"""Random operations on a store, derived from a seed and the contents of the store, and the model for them."""

from __future__ import annotations

import copy
import random

from tastypy_fast import ProgressTracker

KEYS = 300
UNTRIED = {"_done": False, "_aborted": False, "_tries": 0}


def some_key(rng):
    number = rng.randrange(KEYS)
    return rng.choice((number, f"key {number}", ("tuple", number), f"{number}" * 300))


def some_data(rng):
    if rng.random() < 0.05:
        return "large" * rng.randrange(20_000)
    return rng.choice((rng.random(), None, "x" * rng.randrange(500), float("inf"), ["a", {"b": 2**70}]))


def pod_operations(rng, model):
    """Yield operations without end, each of them possible for the current contents of the model."""
    while True:
        chance = rng.random()
        if chance < 0.5 or not model:
            yield "set", some_key(rng), {"list": [], "data": some_data(rng)}
        elif chance < 0.7:
            yield "append", rng.choice(list(model)), rng.random()
        elif chance < 0.95:
            yield "delete", rng.choice(list(model)), None
        else:
            yield "sync", None, None


def tracker_operations(rng, model):
    while True:
        chance = rng.random()
        if chance < 0.3 or not model:
            key = some_key(rng)
            if key not in model:
                yield "add", key, None
        elif chance < 0.5:
            yield "set", rng.choice(list(model)), {"list": [], "data": some_data(rng), **UNTRIED}
        elif chance < 0.6:
            yield "delete", rng.choice(list(model)), None
        elif chance < 0.8:
            yield "abort", rng.choice(list(model)), None
        elif chance < 0.95:
            yield "sync", None, None
        else:
            yield from tracker_loop(rng, model)


def tracker_loop(rng, model):
    yield "loop", None, None
    for key in list(model):
        if not (model[key]["_done"] or model[key]["_aborted"]):
            yield "try", key, None
            if rng.random() < 0.3:
                yield "append", key, rng.random()
            if rng.random() < 0.2:
                yield "error", key, rng.random()
            yield rng.choice(("done", "abort", "nothing")), key, None
        if rng.random() < 0.05:
            return


def change_model(model, operation, key, value):
    if operation == "set":
        model[key] = copy.deepcopy(value)
    elif operation == "delete":
        del model[key]
    elif operation == "append":
        model[key].setdefault("list", []).append(value)
    elif operation == "add":
        model[key] = dict(UNTRIED)
    elif operation == "try":
        model[key]["_tries"] += 1
    elif operation in ("done", "abort"):
        model[key]["_done" if operation == "done" else "_aborted"] = True
        if operation == "done":
            model[key].pop("_error", None)
    elif operation == "error":
        model[key]["_error"] = {"message": value, "try": model[key]["_tries"]}


class Player:
    """Apply the operations to a store."""

    def __init__(self, store):
        self.store = store
        self.loop = None

    def do(self, operation, key, value):
        store = self.store
        if operation == "set":
            store[key] = value
        elif operation == "delete":
            del store[key]
        elif operation == "append":
            store[key].setdefault("list", []).append(value)
        elif operation == "add":
            store.add(key)
        elif operation == "loop":
            self.loop = store.try_keys()
        elif operation == "try":
            found = next(self.loop)
            assert found == key, f"the loop came to {found!r:.50} instead of {key!r:.50}"
        elif operation == "done":
            store.mark_done(key)
        elif operation == "abort":
            store.abort(key)
        elif operation == "error":
            store._record_error(key, {"message": value})
        elif operation == "sync":
            store.sync()


def operations_of(cls, seed, model):
    make = tracker_operations if issubclass(cls, ProgressTracker) else pod_operations
    return enumerate(make(random.Random(seed), model), 1)
