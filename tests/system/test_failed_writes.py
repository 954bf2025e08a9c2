"""Each write to a store's files fails once, meta pages included: it raises an error, loses nothing, and the store stays
usable."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tastypy_fast import POD, SharedPOD, SharedTracker, Tracker
from tests.support.no_background import PRELUDE

PROGRAM = textwrap.dedent("""
    import sys
    import tastypy_fast
    from tastypy_fast import PersistentOrderedDictException

    name, path, durability = sys.argv[1:]
    cls = getattr(tastypy_fast, name)
    model, errors = {}, []

    def until_it_works(work):
        for _ in range(5):
            try:
                return work()
            except PersistentOrderedDictException as error:
                assert isinstance(error, OSError), repr(error)
                errors.append(f"{type(error).__name__}: {error}")
        raise AssertionError(f"it does not go on: {errors}")

    def value(number):
        return {"n": number, "text": "x" * (10_000 if number % 7 == 0 else 50)}

    # Each attempt uses a new instance, because the store may not even have been created.
    store = until_it_works(lambda: cls(path, sync_at=1000, durability=durability))

    def change(key, number):
        store[key] = value(number)

    for number in range(24):
        until_it_works(lambda: change(f"{number * 7919 % 24:02}", number))
        model[f"{number * 7919 % 24:02}"] = number
        if number % 5 == 4:
            until_it_works(lambda: store.pop("04", None))
            model.pop("04", None)
        if number % 3 == 2:
            until_it_works(store.sync)
            # The state read from disk, and the state in memory.
            assert {key: item["n"] for key, item in store.items()} == model, (store.items(), model)
            assert len(store) == len(model)
    if not name.startswith("Shared"):
        store["gone"] = value(0)
        until_it_works(store.revert)
        assert "gone" not in store
    until_it_works(store.close)
    with until_it_works(lambda: cls(path)) as store:
        assert {key: item["n"] for key, item in store.items()} == model, (store.items(), model)
        store._check()
""")


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("this takes Linux and a C compiler")
    library = tmp_path_factory.mktemp("shim") / "fail_writes.so"
    source = Path(__file__).parents[1] / "support" / "fail_writes.c"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def run_with_failure(shim, folder, number, how, cls, durability):
    """Whether there was such a write."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    done = folder / "done"
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "LD_PRELOAD": str(shim),
        "FAIL_WRITES_BELOW": str(folder / "store"), "FAIL_WRITES": f"{number}:{how}", "FAIL_WRITES_DONE": str(done),
    }
    result = subprocess.run([sys.executable, "-c", PRELUDE + PROGRAM, cls.__name__, folder / "store", durability],
                            env=environment, capture_output=True, text=True)
    assert result.returncode == 0, f"write {number} ({how}): {result.stderr}"
    return done.exists()


CASES = [(cls, durability) for cls in (POD, Tracker, SharedPOD, SharedTracker)
         for durability in ("full", "normal", "process")]


def each_write(shim, folder, how, cls, durability, step, first=1):
    number = first
    while True:
        if not run_with_failure(shim, folder, number, how, cls, durability):
            return number
        number += step


@pytest.mark.parametrize("how", [errno.ENOSPC, errno.EIO, "short"])
@pytest.mark.parametrize(("cls", "durability"), CASES)
@pytest.mark.storm
def test_failure_of_each_single_write_loses_nothing(shim, tmp_path, cls, durability, how):
    assert each_write(shim, tmp_path / "work", how, cls, durability, 1) > 20


@pytest.mark.parametrize(("cls", "durability", "how", "first"), [
    (POD, "normal", errno.ENOSPC, 1), (Tracker, "full", errno.EIO, 2), (SharedPOD, "process", errno.ENOSPC, 3),
    (SharedTracker, "process", "short", 4),
])
def test_failure_of_some_single_writes_loses_nothing(shim, tmp_path, cls, durability, how, first):
    assert each_write(shim, tmp_path / "work", how, cls, durability, 11, first) > 20


@pytest.fixture
def needs_disk():
    return True
