"""Keys, values and the model for random operations on a store."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from tastypy_fast import (
    PersistentOrderedDictException,
)
from tests.support.stores import logging
from tests.support.storm import LENGTH

STATUS = ("_done", "_aborted", "_tries")

# Few keys, so that operations often use the same key. All but the first are unusual.
LONG = "x" * 600
KEYS = [
    "a", "b", "c", "d", "e", 1, 2, True, "", "\x00", "\ud800", LONG, LONG + "y", -1, 2**70, -(2**63) - 1,
    (), ("a", 1), ("a", ("\x00", LONG)),
]
keys = st.sampled_from(KEYS[:6]) | st.sampled_from(KEYS)

leaves = st.sampled_from([
    None, True, False, 0, 1, -1, 1.0, -0.0, "", "text", "\ud800", 2**63, 2**70, float("nan"), float("inf"),
    "long " * 2000,
])
values = st.recursive(
    leaves | st.builds(list) | st.builds(dict),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.sampled_from("xyz"), parts, max_size=3),
    max_leaves=6,
)
pairs = st.lists(st.tuples(keys, values), max_size=6)
instances = st.integers(0, 1)
# The number of changes after which a checkpoint is made; None if syncs are written as usual.
merges = st.sampled_from([None, None, 1, 5, 1000])
walk_kinds = st.sampled_from(["keys", "values", "items", "backwards"])


@dataclass
class Item:
    """The model of one key. ``place`` only grows: a key that was deleted and added again has a new one."""

    place: int
    value: Any


@dataclass
class Walk:
    """A running iterator and its position."""

    which: int
    iterator: Any
    kind: str
    backwards: bool = False
    attempt: bool = False
    wants: Callable[[Any], bool] = field(default=lambda value: True)
    position: float | None = None
    finished: bool = False

    def next_in(self, state):
        """The next key of a live loop; None at the end."""
        ahead = [
            (item.place, key) for key, item in state.items()
            if self.wants(item.value) and self.is_ahead(item.place)
        ]
        return (max if self.backwards else min)(ahead, default=None, key=lambda pair: pair[0])

    def is_ahead(self, place):
        return self.position is None or (place < self.position if self.backwards else place > self.position)


def text_of(value):
    """A text that distinguishes values: True and 1, 0.0 and -0.0, and dicts in another order. NaN equals itself."""
    if isinstance(value, dict) and value.keys() >= set(STATUS):
        # The order of the status keys in the dict of a task is not defined.
        value = {name: value[name] for name in STATUS} | value
    return repr(value)


def listed(state):
    in_order = sorted(state.items(), key=lambda pair: pair[1].place)
    return [(key, text_of(item.value)) for key, item in in_order]


def change(value, deep, how, part):
    """Change a list or dict in place, or one inside it."""
    parts = value.values() if isinstance(value, dict) else value
    inside = [inner for inner in parts if isinstance(inner, (list, dict))]
    if deep and inside:
        change(inside[-1], deep, how, part)
    elif isinstance(value, list):
        if how == "add":
            value.append(copy.deepcopy(part))
        elif how == "replace" and value:
            value[0] = copy.deepcopy(part)
        elif value:
            value.pop()
    elif how == "add":
        value["new"] = copy.deepcopy(part)
    else:
        names = [name for name in value if name not in STATUS]
        if names and how == "replace":
            value[names[0]] = copy.deepcopy(part)
        elif names:
            del value[names[-1]]


changes = {"deep": st.booleans(), "how": st.sampled_from(["add", "replace", "take away"]), "part": values}


class MachineOnDisk(RuleBasedStateMachine):
    """Run in a separate folder, perhaps with syncs in the log. Leaves nothing, also after a failure."""

    resources = None
    stores = ()

    def begin_in_a_folder(self, checkpoint_at):
        self.resources = contextlib.ExitStack()
        self.path = Path(self.resources.enter_context(tempfile.TemporaryDirectory(prefix="tastypy_fast-"))) / "store"
        if checkpoint_at:
            self.resources.enter_context(logging(checkpoint_at))

    def teardown(self):
        if self.resources is not None:
            with self.resources, contextlib.suppress(PersistentOrderedDictException):
                # The failure was reported. An error here would hide it.
                self.close_all()

    def close_all(self):
        for store in self.stores:
            store.revert()
            store.close()


# Shrinking one failure at a time takes long enough.
ORDINARY = settings(max_examples=40, stateful_step_count=40, report_multiple_bugs=False)
STORM = settings(ORDINARY, max_examples=round(3000 * LENGTH), stateful_step_count=80)
