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

import pytest
from lmdb.verify import verify

from tastypy_fast._lmdb import engine
from tests.support.children import Child
from tests.support.operations import Player, change_model, operations_of

pytestmark = [pytest.mark.with_log, pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]

ROUNDS = 110  # of each class
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
    """The number of the operation after which the store had this state; None if there is none."""
    model = copy.deepcopy(start)
    operations = operations_of(cls, seed, model)
    number = 0
    while True:
        if number >= synced and list(model.items()) == list(found.items()):
            return number
        number, step = next(operations)
        change_model(model, *step)
        # The child reports this sync before it continues, so it cannot be further.
        if step[0] == "sync" and number > synced:
            return number if list(model.items()) == list(found.items()) else None


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
            found = dict(store.items())
            assert len(store) == len(found), where
            after = state_after(cls, round_seed, state, synced, found)
            assert after is not None, f"{where}: what is there was never there after operation {synced}"
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
