"""Kill a private tracker at random moments, and measure what is lost: ``python -m benchmarks.kill_loss --help``.

A child process works through tasks of one duration, at full processor time, with the defaults of ``Tracker``. The
parent kills it with SIGKILL, opens the tracker and finds which of the finished tasks are done. The loss is the time
from the moment when the first lost task was finished to the kill.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tastypy_fast import Tracker

__all__ = ["Loss", "lose_by_a_kill", "main"]

_FINISHED = struct.Struct("=qd")
# Each child works this long at least, in seconds, so that there are syncs before the kill.
_LEAST = 2.5


class Loss(NamedTuple):
    """What one kill took."""

    # Seconds from the end of the first lost task to the kill; 0.0 if nothing was lost.
    seconds: float
    # How many finished tasks were lost.
    tasks: int
    # How many tasks got a try that they should not have, or have none though they were running.
    wrong_tries: int


def lose_by_a_kill(path: Path, duration: float, after: float, tasks: int) -> Loss:
    """Run tasks of ``duration`` seconds, kill the process after ``after`` seconds, and count what is lost."""
    with Tracker(path) as tracker:
        tracker.add_many(range(tasks))
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            _work(path, duration, writer)
        finally:
            os._exit(1)
    os.close(writer)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    killed_at = time.monotonic()
    os.waitpid(child, 0)
    with open(reader, "rb") as pipe:
        finished = dict(_FINISHED.iter_unpack(pipe.read()))
    with Tracker(path) as tracker:
        lost = [key for key in finished if not tracker.done(key)]
        running = max(finished, default=-1) + 1
        wrong = sum(tracker.tries(key) != 1 for key in finished if tracker.done(key))
        wrong += sum(tracker.tries(key) not in (0, 1) for key in lost)
        wrong += sum(tracker.tries(key) for key in range(running + 2, tasks))
        wrong += tracker.tries(running) + tracker.tries(min(running + 1, tasks - 1)) not in (0, 1, 2)
    return Loss(max((killed_at - finished[key] for key in lost), default=0.0), len(lost), wrong)


def _work(path: Path, duration: float, writer: int) -> None:
    with Tracker(path, max_tries=3) as tracker:
        for key in tracker.try_keys():
            end = time.perf_counter() + duration
            while time.perf_counter() < end:
                pass
            tracker[key]["result"] = key
            tracker.mark_done(key)
            os.write(writer, _FINISHED.pack(key, time.monotonic()))


def main() -> int:
    """Print the loss for each duration, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill_loss", description=__doc__.split("\n")[0])
    parser.add_argument("--durations", type=float, nargs="+", default=[0.001, 0.1, 5.0], metavar="SECONDS")
    parser.add_argument("--rounds", type=int, default=20, help="kills for each duration (default: 20)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    print(f"{arguments.rounds} kills for each duration, seed {arguments.seed}")
    print("    task  lost seconds: median   worst  lost tasks: median   worst  wrong tries")
    for duration in arguments.durations:
        losses = []
        for _ in range(arguments.rounds):
            with tempfile.TemporaryDirectory(prefix="kill_loss-") as folder:
                after = _LEAST + duration + rng.random() * max(2.0, 2 * duration)
                number = max(100, int(after / duration * 2))
                losses.append(lose_by_a_kill(Path(folder) / "tracker", duration, after, number))
        seconds, tasks, wrong = zip(*losses, strict=True)
        print(f"{duration:>6} s  {median(seconds):>20.2f}  {max(seconds):>6.2f}  {median(tasks):>18.0f}  "
              f"{max(tasks):>6}  {sum(wrong):>11}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
