"""Processes are killed with SIGKILL at random points: synced data is there, in order, and nothing is saved in part.

Parent and child derive the same operations from a seed and the state of the store. The child reports each sync that has
returned. The parent must then find the state after the last reported sync, or after an operation between it and the
next. (That operation made an automatic sync, or a sync that the child could not report.)
"""

from __future__ import annotations

import copy
import random
import shutil
import signal
from collections import Counter
from itertools import pairwise

import pytest
from lmdb.verify import verify

from tastypy_fast._lmdb import engine
from tests.support.children import Child
from tests.support.operations import Player, change_model, operations_of

pytestmark = [pytest.mark.with_log, pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]

ROUNDS = 60  # of each class
STORM_ROUNDS = 1000


def live(pipe, cls, path, seed, options):
    """The operations of the child until it is killed."""
    # The map is so small that it grows often.
    engine.MAP_SIZE = 1 << 17
    player = Player(cls(path, **options))
    model = dict(player.store.items())
    for number, step in operations_of(cls, seed, model):
        player.do(*step)
        change_model(model, *step)
        if step[0] == "sync":
            pipe.send(number)


def kill_somewhere(child, rng):
    """Kill the child after a number of syncs and some more time. Returns the last sync that it has reported."""
    told = [0]
    try:
        for _ in range(rng.choice((0, 0, 1, 2, 5, 10))):
            told.append(child.pipe.recv())
        for _ in range(rng.randrange(rng.choice((1, 1_000, 100_000)))):
            pass
        child.kill()
    except EOFError:
        pass  # The child has failed, as its exit status shows.
    told += child.receive_all()
    assert child.wait() == -signal.SIGKILL
    return told[-1]


def state_after(cls, seed, start, synced, found):
    """The number of the operation after which the store was as it was found, None if there is none.

    A kill raises the tries of the tasks that were running, at any operation up to the next sync.
    """
    model = copy.deepcopy(start)
    operations = operations_of(cls, seed, model)
    number = 0
    running, history, possible = RunningTasks(), [], []
    while True:
        if number >= synced:
            history.append(running.tries(model))
            raised = raised_tries(model, found)
            if raised is not None:
                possible.append((number, raised))
            for after, tries in possible:
                # A kill inside an operation may find one slot as before it, and the other one as after it.
                if not tries or any(tries.items() <= one.items() | other.items()
                                    for one, other in pairwise([{}, *history])):
                    return after
        number, step = next(operations)
        change_model(model, *step)
        running.follow(*step[:2])
        # The child reports this sync before it continues, so it cannot be further.
        if step[0] == "sync" and number > synced:
            return number if raised_tries(model, found) == {} else None


def differences(cls, seed, start, synced, found):
    """For each operation up to the next sync: how the store differs from the model, and which tasks are running."""
    model, running, lines = copy.deepcopy(start), RunningTasks(), []
    for number, step in operations_of(cls, seed, model):
        change_model(model, *step)
        running.follow(*step[:2])
        if number >= synced:
            keys = [key for key in {**model, **found} if model.get(key) != found.get(key)]
            lines.append(f"{number} {step[0]} {step[1]!r:.40}: {len(keys)} keys differ, same order: "
                         f"{list(model) == list(found)}, running: {running.tries(model)!r:.200}")
            lines += [f"    {key!r:.40}: {model.get(key)!r:.200} | {found.get(key)!r:.200}" for key in keys[:3]]
        if step[0] == "sync" and number > synced:
            break
    return "\n".join(lines)


class RunningTasks:
    """The tasks that are running after an operation: the one of the loop, and the one that the last loop has left."""

    def __init__(self):
        self.of_loop = self.of_thread = None

    def follow(self, operation, key):
        if operation == "loop":
            if self.of_loop is not None:
                self.of_thread = self.of_loop
            self.of_loop = None
        elif operation == "try":
            self.of_loop = key
        elif operation in ("done", "abort", "delete"):
            self.of_loop = None if self.of_loop == key else self.of_loop
            self.of_thread = None if self.of_thread == key else self.of_thread

    def tries(self, model):
        return {key: model[key]["_tries"] for key in (self.of_loop, self.of_thread) if key is not None}


def raised_tries(model, found):
    """The tasks that have more tries than in the model, with their tries; None if anything else differs."""
    if list(model) != list(found):
        return None
    raised = {}
    for key, value in model.items():
        other = found[key]
        if value != other:
            if "_tries" not in value or {**value, "_tries": 0} != {**other, "_tries": 0}:
                return None
            if other["_tries"] <= value["_tries"]:
                return None
            raised[key] = other["_tries"]
    return raised


def storm(cls, path, rounds, seed):
    rng = random.Random(seed)
    endings = Counter()
    state = {}
    for number in range(rounds):
        if rng.random() < 0.05:
            shutil.rmtree(path, ignore_errors=True)
            state = {}
        options = {"sync_at": rng.choice((1, 3, 20)), "durability": rng.choice(("full", "normal", "process"))}
        round_seed = rng.random()
        where = f"seed {seed}, round {number}, {options}"
        with Child(live, cls, path, round_seed, options) as child:
            synced = kill_somewhere(child, rng)
        if not is_empty(path):
            faults = verify(path)
            assert not faults, f"{where}: {faults}"
        with cls(path) as store:
            store._check()
            # The model does not know of tries that wait for a task which was never synced.
            store._store.write(lambda txn, meta=store._store.meta: txn.delete(b"tries", db=meta))
            store._store.waiting_tries.clear()
            found = dict(store.items())
            assert len(store) == len(found), where
            after = state_after(cls, round_seed, state, synced, found)
            assert after is not None, (f"{where}: what is there was never there after operation {synced}\n"
                                       + differences(cls, round_seed, state, synced, found))
            endings["nothing" if not after else "a sync" if after == synced else "an automatic sync"] += 1
            # The store can be written.
            store[number] = {"round": number}
            found[number] = store[number]
        state = found
    return endings


def is_empty(path):
    """Whether the child was killed before it created a store."""
    data = path / "data.mdb"
    return not data.exists() or data.stat().st_size == 0


@pytest.mark.parametrize(
    "rounds", [ROUNDS, pytest.param(STORM_ROUNDS, marks=[pytest.mark.storm, pytest.mark.timeout(3600)])]
)
def test_synced_data_survives_a_kill(any_class, path, rounds, seed):
    endings = storm(any_class, path, rounds, seed)
    # The kills must come at different moments. This is random, and certain only for many kills.
    assert len(endings) == 3 or rounds == ROUNDS, endings
