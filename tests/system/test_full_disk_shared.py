"""Shared stores that grow: old pages, the map, a full disk."""

from __future__ import annotations

import functools
import itertools
import os
import random
import resource
import shutil
import subprocess
from contextlib import ExitStack, contextmanager

import pytest

from tastypy_fast import (
    DiskFullError,
    SharedPOD,
    SharedTracker,
    StorageError,
)
from tastypy_fast._lmdb import engine
from tests.support.children import Child
from tests.support.processes import BLOCKS, contents
from tests.support.workers import PROCESSES, in_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_slow_reader_does_not_make_the_file_grow(path):
    """While others write, the file stays within three times the size of its live data.

    Flush points add some megabytes, however small the store is, so there are none here.
    """
    value = {"text": "x" * 400}
    count = 8000
    blocks = 60

    def write(pipe, seed):
        rng = random.Random(seed)
        with SharedPOD(path, durability="unsafe") as pod:
            for _ in range(blocks):
                with pod.locked():
                    for _ in range(100):
                        pod[rng.randrange(count)] = {**value, "n": rng.random()}
                pod.set[rng.randrange(count)]["n"] = 0
                pipe.send("a block")

    with SharedPOD(path, durability="unsafe") as pod:
        pod.update((number, value) for number in range(count))
        pod.sync()
        size = (path / "data.mdb").stat().st_size
        with ExitStack() as stack:
            loops = [pod.iteritems(), iter(pod), pod.itervalues(), reversed(pod)]
            writers = [stack.enter_context(Child(write, seed)) for seed in range(2)]
            for _ in range(blocks):
                for writer in writers:
                    assert writer.pipe.recv() == "a block"
                for loop in loops:
                    next(loop)
            assert [writer.wait() for writer in writers] == [0, 0]
            for loop in loops:
                assert len(list(loop)) == count - blocks
        assert len(pod) == count
        assert (path / "data.mdb").stat().st_size < 3 * size


SMALL = 1 << 18


def fill_one_by_one(pod, number, texts, begin=0):
    for place, text in enumerate(texts, begin):
        pod[number, place] = text


def fill_in_blocks(block, pod, number, texts):
    """Repeat a block for which other writers have left no space."""
    for begin in range(0, len(texts), 5):
        while not fill_block(block(pod), pod, number, texts[begin : begin + 5], begin):
            assert (number, begin) not in pod


def fill_block(block, pod, number, texts, begin):
    try:
        with block:
            fill_one_by_one(pod, number, texts, begin)
    except StorageError:
        return False
    return True


def fill_by_update(pod, number, texts):
    for place in range(0, len(texts), 40):
        pod.update(((number, place + n), text) for n, text in enumerate(texts[place : place + 40]))


def fill_through_set(pod, number, texts):
    for place, text in enumerate(texts):
        pod.set[number, place] = ""
        pod.set[number, place] += text


@contextmanager
def transaction_in_block(pod):
    with pod.locked(), pod.transaction():
        yield


def fill_one_value(pod, number, texts):
    pod[number, "list"] = []
    for place, text in enumerate(texts):
        pod.set[number, "list"].append(text)
        pod[number, place] = pod[number, "list"][place]
    del pod[number, "list"]


FILLINGS = {
    "one by one": fill_one_by_one,
    "update": fill_by_update,
    "set": fill_through_set,
    "one value": fill_one_value,
    "blocks": functools.partial(fill_in_blocks, SharedPOD.locked),
    "transactions": functools.partial(fill_in_blocks, transaction_in_block),
}


@pytest.mark.parametrize("names", [*([name] * PROCESSES for name in FILLINGS), list(FILLINGS)], ids="-".join)
def test_map_grows_while_several_processes_write(path, monkeypatch, names):
    monkeypatch.setattr(engine, "MAP_SIZE", SMALL)
    monkeypatch.setattr(engine, "SMALLEST_MAP_SIZE", SMALL)
    texts = [f"{number} " * 700 for number in range(200)]

    def work(number):
        with SharedPOD(path, sync_at=30) as pod:
            FILLINGS[names[number]](pod, number, texts)
            # Others have grown the map in the meantime.
            assert [pod[number, place] for place in range(len(texts))] == texts

    count = len(names)
    with SharedPOD(path, init={"first": 1}) as pod:
        in_processes(work, count)
        assert len(pod) == 1 + count * len(texts)
        assert pod["first"] == 1
        assert (path / "data.mdb").stat().st_size > 4 * SMALL
        pod["last"] = 1
        pod._check()
    found = dict(contents(path))
    assert [found[number, place] for number in range(count) for place in range(len(texts))] == texts * count


def test_map_is_full_for_the_only_change_after_another_process_has_written(path, monkeypatch):
    """What the cache holds is not looked up in the transaction that has failed."""
    monkeypatch.setattr(engine, "MAP_SIZE", SMALL)
    monkeypatch.setattr(engine, "SMALLEST_MAP_SIZE", SMALL)
    text = "x" * 20_000

    def write(pipe):
        with SharedPOD(path) as pod:
            pipe.send("ready")
            while (number := pipe.recv()) is not None:
                pod["small"] = number
                pipe.send("written")

    with SharedPOD(path, init={"small": 0}) as pod, Child(write) as child:
        assert child.pipe.recv() == "ready"
        for number in range(100):
            child.pipe.send(number)
            assert child.pipe.recv() == "written"
            pod.set[number] = text
        child.pipe.send(None)
        assert child.wait() == 0
        assert dict(pod) == {"small": 99} | dict.fromkeys(range(100), text)
        assert (path / "data.mdb").stat().st_size > 4 * SMALL
        pod._check()


@pytest.mark.parametrize("name", BLOCKS)
def test_block_larger_than_the_map_raises_and_succeeds_when_repeated(path, monkeypatch, name):
    monkeypatch.setattr(engine, "MAP_SIZE", SMALL)
    monkeypatch.setattr(engine, "SMALLEST_MAP_SIZE", SMALL)
    with SharedPOD(path, init={"before": 1}) as pod:
        failed = 0
        while fill_with_large_ones(pod, BLOCKS[name]) is not None:
            failed += 1
            assert failed < 10
            assert pod.items() == [("before", 1)]
        assert failed
        assert len(pod) == 101
        pod._check()


def fill_with_large_ones(pod, block):
    """Write large values in one block. Returns its error."""
    try:
        with block(pod):
            for number in range(100):
                pod[number] = "x" * 10_000
                # Assigned values are in the transaction when a value is read.
                assert len(pod) == number + 2
    except StorageError as error:
        return error


class SizeLimit:
    """A limit on the size of every file that this process writes. Only for a child process."""

    def __init__(self, folder):
        self.folder = folder

    def fill(self, room):
        largest = max(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + room, resource.RLIM_INFINITY))

    def free(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_full_disk_for_one_process_does_not_stop_the_others(path):
    def limited(pipe):
        disk = SizeLimit(path)
        with SharedPOD(path) as pod:
            disk.fill(room=100_000)
            pod["small"] = 1
            for write in (
                lambda: pod.__setitem__("large", "x" * 1_000_000),
                lambda: pod.update({"small": 2, "large": "x" * 1_000_000}),
                lambda: pod.set["list"].extend(["x" * 1000] * 1000),
                lambda: pod.setdefault("large", "x" * 1_000_000),
            ):
                with pytest.raises(DiskFullError, match="disk is full"):
                    write()
            with pytest.raises(DiskFullError), pod.locked():  # noqa: PT012
                pod["small"] = 3
                pod["large"] = "x" * 1_000_000
            assert pod["small"] == 1
            assert pod["list"] == []
            assert "large" not in pod
            pipe.send("full")
            assert pipe.recv() == "others have written"
            assert len(pod["others"]) == 1_000_000
            # This process can use the space that the others have added to the file.
            pod["small"] = 4
            disk.free()
            pod["large"] = "x" * 3_000_000
            pod._check()

    with SharedPOD(path, init={"list": [], "ballast": ["x" * 1000] * 200}) as pod, Child(limited) as child:
        assert child.pipe.recv() == "full"
        assert pod["small"] == 1
        pod["others"] = "x" * 1_000_000
        pod.set["list"].append(1)
        child.pipe.send("others have written")
        assert child.wait() == 0
        assert (pod["small"], len(pod["large"]), pod["list"]) == (4, 3_000_000, [1])
        pod._check()
    contents(path)


@pytest.fixture
def small_file_system(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    may_mount = os.geteuid() == 0 and shutil.which("mount")
    if not may_mount or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a file system, and not everywhere")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_processes_on_a_full_disk_keep_their_changes_and_continue_later(small_file_system):
    """Each process ends, keeps its changes, and continues when there is space."""
    path = small_file_system / "store"

    def work(number):
        with SharedTracker(path) as tracker:
            written = 0
            with pytest.raises(DiskFullError):  # noqa: PT012
                for written in itertools.count():
                    tracker[number, written] = {"text": "x" * 2000}
            assert (number, written) not in tracker
            assert tracker.tries((number, 0)) == 0
            return written

    with SharedTracker(path) as tracker:
        counts = in_processes(work)
        assert min(counts) >= 0
        assert sum(counts) > 100
        assert len(tracker) == sum(counts)
        for number, count in enumerate(counts):
            assert [key for key in tracker if key[0] == number] == [(number, place) for place in range(count)]
        tracker._check()
        shutil.copytree(path, small_file_system.parent / "copy")
    assert len(contents(small_file_system.parent / "copy", SharedTracker)) == sum(counts)


@pytest.fixture
def needs_disk():
    return True
