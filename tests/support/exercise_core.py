"""Run every path of the compiled modules once, for valgrind and the sanitizers. It runs as a program."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tastypy_fast import (
    InvalidKeyError,
    PersistentOrderedDict,
    PersistentOrderedDictIntegrityError,
    ProgressTracker,
    SharedPersistentOrderedDict,
    SharedProgressTracker,
    UnstorableValueError,
)
from tastypy_fast._core.key_codec import decode_key, encode_key
from tastypy_fast._core.record_codec import decode_record, encode_record, encode_value

KEYS = ["", "plain", "\ud800", "a\x00b", "x" * 600, "x" * 700, 0, -1, 2**63, -(2**63), 2**200, -(2**200)]
KEYS += [(key, (key, ())) for key in KEYS]
VALUES = [None, True, 1, 2**70, 1.5, float("inf"), "text", "\udc80", [1, [2]], {"a": {"b": []}}, {1: (2,)}, "z" * 5000]


def exercise_codecs(seed: random.Random) -> None:
    for key in KEYS:
        encoded = encode_key(key)
        assert decode_key(encoded) == key
        for value in VALUES:
            codec, payload = encode_value(value)
            for compress in (False, True):
                record = encode_record(codec, encoded, payload, compress)
                assert decode_record(record) == (codec, encoded, payload)
                damaged = bytearray(record)
                damaged[seed.randrange(len(damaged))] ^= 1 << seed.randrange(8)
                for data in (bytes(damaged), record[: seed.randrange(len(record))]):
                    with suppress(PersistentOrderedDictIntegrityError):
                        decode_key(decode_record(data)[1])
    for wrong in (1.5, None, b"x", ("a", [1])):
        try:
            encode_key(wrong)
        except InvalidKeyError:
            continue
        raise AssertionError(wrong)


def exercise_dict(folder: Path, seed: random.Random) -> None:
    with PersistentOrderedDict(folder / "pod", sync_at=7, gzipped=True) as pod:
        iterator = iter(pod)
        for number in range(400):
            key = seed.choice([*KEYS, number % 50])
            pod[key] = seed.choice(VALUES)
            value = pod[seed.choice(pod.keys())]
            if isinstance(value, list):
                value.append(number)
            if number % 3 == 0:
                del pod[seed.choice(pod.keys())]
            if number % 50 == 0:
                pod.revert()
                pod._check()
            next(iterator, None)
        pod["bad"] = []
        pod["bad"].append({1, 2})
        try:
            pod.sync()
        except UnstorableValueError:
            del pod["bad"]
        list(reversed(pod))
        pod.items()
        pod.dirty()
        pod._check()


def exercise_log(folder: Path, seed: random.Random) -> None:
    """Sync scattered changes, and read them while they are in the log, also as another process does."""
    with ProgressTracker(folder / "log", sync_at=300) as tracker:
        for _ in range(6):
            for number in seed.sample(range(900), 250):
                tracker[f"{number * 2654435761 % 2**32:08x}"] = {"number": number}
            for key in seed.sample(tracker.keys(), 100):
                tracker.mark_done(key)
            for key in seed.sample(tracker.keys(), 20):
                del tracker[key]
            tracker.sync()
            assert tracker._store.wal
            tracker._check()
            assert [key for key, _ in tracker.items()][::-1] == list(reversed(tracker))
            list(tracker.todo_keys())
        path = folder / "copy"
        shutil.copytree(folder / "log", path)
        with ProgressTracker(path, mode="r") as reader:
            assert reader.items() == tracker.items()


def exercise_tracker(folder: Path, seed: random.Random) -> None:
    with ProgressTracker(folder / "tracker", max_tries=2, sync_at=50) as tracker:
        tracker.add_many(range(1200))
        for key, task in tracker.try_items():
            task["data"] = [key]
            if seed.random() < 0.5:
                tracker.mark_done(key)
            if seed.random() < 0.1:
                tracker.abort(key)
            if key < 600 and seed.random() < 0.2:
                del tracker[key]
            if key < 600:
                tracker.add_if_absent(key + 2000)
        for key in tracker.try_keys():
            tracker[key]["_done"] = True
        tracker.update({"new": {"x": 1}, 5: {"_tries": 7}})
        assert tracker.num_done() + sum(1 for _ in tracker.todo_keys()) <= len(tracker)
        list(tracker.aborted_items())
        tracker._check()


def exercise_shared_dict(folder: Path, seed: random.Random) -> None:
    with SharedPersistentOrderedDict(folder / "shared", sync_at=50) as shared:
        iterator = iter(shared)
        for number in range(400):
            shared[seed.randrange(100)] = {"n": number, "list": []}
            key = seed.choice(shared.keys())
            shared.set[key]["n"] += 1
            shared.set[key]["list"].extend(value for value in range(3))
            with shared.locked():
                shared.set[key]["list"][1:] = shared[key]["list"] * 2
                try:
                    with shared.transaction():
                        del shared.set[key]["list"]
                        shared["undone"] = shared.set[key]["n"]
                except UnstorableValueError:
                    assert "undone" not in shared
            if number % 3 == 0:
                del shared[seed.choice(shared.keys())]
            if number % 50 == 0:
                shared.revert()
                shared._check()
            next(iterator, None)
        shared.dirty()
        shared.items()
        shared._check()


def exercise_shared_tracker(folder: Path, seed: random.Random) -> None:
    with SharedProgressTracker(folder / "shared tracker", max_tries=2, sync_at=50) as tracker:
        tracker.add_many(range(1200))
        for batch in (7, 1):
            for key, task in tracker.try_items(batch=batch):
                tracker.set[key]["data"] = task["_tries"]
                if seed.random() < 0.5:
                    tracker.mark_done(key)
                elif seed.random() < 0.2:
                    tracker.release(key)
                elif seed.random() < 0.2:
                    del tracker[key]
        next(tracker.try_keys(allow_aborted=True, batch=3), None)
        tracker.should_try_add("new")
        assert len(tracker.claims()) == len(tracker.claimed_keys())
        tracker.mark_done_many(tracker.claimed_keys())
        tracker.revert()
        tracker._check()


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    with tempfile.TemporaryDirectory() as name:
        exercise_codecs(random.Random(number))
        exercise_dict(Path(name), random.Random(number))
        exercise_log(Path(name), random.Random(number))
        exercise_tracker(Path(name), random.Random(number))
        exercise_shared_dict(Path(name), random.Random(number))
        exercise_shared_tracker(Path(name), random.Random(number))
    print("the core was exercised")


if __name__ == "__main__":
    main()
