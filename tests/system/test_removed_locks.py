"""Lock files are removed at any moment, while processes open, write, share, read and are killed.

No synced data is lost.
"""

from __future__ import annotations

import contextlib
import os
import random
import time

import pytest

from tastypy_fast import POD, SharedPOD, StorageError, StoreInUseError, StoreNotFoundError, maintenance
from tests.support.children import Child
from tests.support.storm import LENGTH

pytestmark = [pytest.mark.storm, pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]

SECONDS = 60 * LENGTH
# The errors that a process may get when it opens a store, or continues to use it.
REFUSED = (StoreInUseError, StorageError, StoreNotFoundError)


def new_key():
    return f"{os.getpid()}-{time.monotonic_ns()}"


def write_alone(path, note, rng):
    with POD(path) as store:
        for _ in range(rng.randint(1, 20)):
            key = new_key()
            store[key] = [1] * rng.randint(1, 300)
            store.sync()
            note(key)


def write_together(path, note, rng):
    store = SharedPOD(path)
    try:
        for _ in range(rng.randint(1, 60)):
            key = new_key()
            store[key] = [1] * rng.randint(1, 300)
            note(key)
    finally:
        store.close()


def read(path, note, rng):
    with POD(path, mode="r") as store:
        for _ in range(5):
            store.items()


def again_and_again(pipe, work, path, notes, seed):
    rng = random.Random(seed)
    with open(notes, "a") as file:
        def note(key):
            file.write(f"{key}\n")
            file.flush()

        while True:
            with contextlib.suppress(*REFUSED):
                work(path, note, rng)


@pytest.mark.timeout(SECONDS * 3 + 300)
@pytest.mark.parametrize("names", [["owner.lock", "lock.mdb"], ["owner.lock", "lock.mdb", "turn.lock"]], ids=len)
@pytest.mark.parametrize("works", [
    [write_alone] * 3, [write_together] * 3, [write_alone, write_alone, write_together, write_together, read],
], ids=["alone", "together", "all"])
def test_removed_lock_files_lose_no_synced_data(tmp_path, works, names, seed):
    rng = random.Random(seed)
    path = tmp_path / "store"
    POD(path).close()
    children = {}

    def begin(work):
        notes = tmp_path / f"notes-{time.monotonic_ns()}"
        children[Child(again_and_again, work, path, notes, rng.random())] = work

    for work in works:
        begin(work)
    end = time.monotonic() + SECONDS / 6
    removed = 0
    while time.monotonic() < end:
        time.sleep(rng.random() * 0.05)
        try:
            os.unlink(path / rng.choice(names))
            removed += 1
        except FileNotFoundError:
            pass
        if rng.random() < 0.15:
            child = rng.choice(list(children))
            work = children.pop(child)
            child.__exit__()
            begin(work)
    for child in children:
        child.__exit__()
    assert removed
    noted = set().union(*(file.read_text().split("\n")[:-1] for file in tmp_path.glob("notes-*")))
    assert noted
    assert maintenance.verify(path) == []
    with POD(path, mode="r") as store:
        assert noted <= set(store)
