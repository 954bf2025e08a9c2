"""Cut the power at many moments of a recording, and check each disk."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.power_cuts.checker import Checker
from tests.power_cuts.disk_model import MODES, Disk
from tests.power_cuts.history import History, Verdict
from tests.power_cuts.recorder import Event, record
from tests.power_cuts.workloads import kind_of

__all__ = ["Result", "Simulation", "is_mapped", "simulate_workload"]

# How many disks are made of one moment, if there are moments enough.
DISKS_PER_MOMENT = 5
# Not a power cut: all processes are killed, and the machine goes on.
KILLED = "killed"
# How often the power fails again while a disk is opened, and how often a reader is the first to open it.
AGAIN, READER_FIRST = 0.4, 0.2


def is_mapped(path: Path) -> bool:
    """Whether a store writes this file through a memory map."""
    return path.name in ("lock.mdb", "undo") or path.parent.name == "workers"


@dataclass
class Result:
    """What became of the disks."""

    counts: Counter[str] = field(default_factory=Counter)
    # How many of them are of a second power cut, while another one was opened.
    again: int = 0
    # (moment, mode, verdict) of those that were not sound.
    examples: list[tuple[int, str, Verdict]] = field(default_factory=list)
    seconds: float = 0

    @property
    def disks(self) -> int:
        """How many disks were checked."""
        return self.counts.total()

    @property
    def bad(self) -> int:
        """How many of them were not sound."""
        return self.disks - self.counts["sound"]

    def add(self, other: Result, prefix: str = "") -> None:
        """Add another result. Its examples get a prefix."""
        self.counts += other.counts
        self.again += other.again
        self.seconds += other.seconds
        self.examples += [(moment, prefix + mode, verdict) for moment, mode, verdict in other.examples]

    def describe_examples(self) -> list[str]:
        """Return a line for each of the first disks that were not sound."""
        return [f"event {moment}, {mode}: {verdict.kind}: {verdict.detail}"
                for moment, mode, verdict in self.examples[:5]]

    def __str__(self) -> str:
        text = (f"{self.disks} disks ({self.again} of a second power cut): {self.counts['damaged']} damaged, "
                f"{self.counts['lost']} lost what was promised, {self.seconds:.1f} s")
        return "\n  ".join([text, *self.describe_examples()])


class Simulation:
    """The disks of one recording. They depend on the recording and on ``rng`` only."""

    def __init__(self, events: list[Event], root: Path, checker: Checker, kind: str, level: str, rng: Random,
                 is_shared: bool | None = None) -> None:
        """``root`` is the folder in which the recorded program had its store, as it left it.

        ``is_shared`` tells which class opens the disks. The kind "shared" tells so by itself.
        """
        self._events = events
        self._root = root
        self._checker = checker
        self._kind = kind
        self._is_shared = kind == "shared" if is_shared is None else is_shared
        self._level = level
        self._rng = rng
        # Name -> content at the end of the files that are written through a memory map, which is not recorded.
        self._mapped = {str(path.relative_to(root)): path.read_bytes()
                        for path in (root / "store").rglob("*") if path.is_file() and is_mapped(path)}
        self._result = Result()

    def run(self, disks: int, within: range) -> Result:
        """Cut the power at random moments within a range of events, so that there are about so many disks."""
        start = time.monotonic()
        plan = self._plan(disks, within)
        disk, history = Disk(self._root, is_empty=True), History(self._level)
        for index, event in enumerate(self._events[: within.stop]):
            disk.apply(index, event)
            if event.kind == "mark":
                history.add(event.words)
            for mode in plan.get(index, ()):
                self._check(disk, history, index, mode)
        self._result.seconds = time.monotonic() - start
        return self._result

    def _plan(self, disks: int, within: range) -> dict[int, list[str]]:
        """Choose the moments, and the modes of each. Most are moments at which something is not on the disk yet."""
        disk = Disk(self._root, is_empty=True)
        uncertain, certain = [], []
        for index, event in enumerate(self._events[: within.stop]):
            disk.apply(index, event)
            if index in within and (event.kind != "mark" or event.words[0] in ("auto", "syncend")):
                (certain if disk.is_certain() else uncertain).append(index)
        disks = int(disks / (1 + AGAIN))
        plan = {}
        if uncertain:
            per = max(min(DISKS_PER_MOMENT, disks // 4), -(-disks // len(uncertain)))
            plan = {index: self._modes(per) for index in self._sample(uncertain, disks // per)}
        return {**plan, **{index: ["none"] for index in self._sample(certain, disks // 20)}}

    def _sample(self, indexes: list[int], count: int) -> list[int]:
        return self._rng.sample(indexes, min(count, len(indexes)))

    def _modes(self, count: int) -> list[str]:
        """Choose modes of power cuts, each as often as the others."""
        modes: list[str] = []
        while len(modes) < count:
            modes += self._rng.sample((*MODES, KILLED), len(MODES) + 1)
        return modes[:count]

    def _check(self, disk: Disk, history: History, index: int, mode: str) -> None:
        rng, is_killed = self._rng, mode == KILLED
        image = disk.as_seen() if is_killed else disk.after_power_cut(mode, rng)
        self._set_mapped_files(image, is_killed)
        self._checker.write(image)
        again = None if is_killed or rng.random() > AGAIN else Disk(self._checker.folder)
        found = self._checker.check(self._kind, self._level, is_shared=self._is_shared, same_boot=is_killed,
                                    reader_first=rng.random() < READER_FIRST)
        self._add(index, mode, history.judge(found, self._kind, is_killed))
        if again is not None:
            self._cut_again(again, history, index, mode)

    def _set_mapped_files(self, image: dict[str, bytes | None], is_killed: bool) -> None:
        """Let the mapped files be as they were, or zeros, or as at the end. lock.mdb may be missing, as in a copy."""
        for name in list(image):
            if not is_mapped(Path(name)) or image[name] is None:
                continue
            last = self._mapped.get(name, b"")
            if is_killed:
                image[name] = last
            else:
                image[name] = self._rng.choice((image[name], bytes(len(last)), last))
                if Path(name).name == "lock.mdb" and self._rng.random() < 0.2:
                    del image[name]

    def _cut_again(self, disk: Disk, history: History, index: int, mode: str) -> None:
        """Let the power fail again while the disk is opened, if opening it writes."""
        rng = self._rng
        opening = self._checker.opening()
        if not opening:
            return
        for at, event in enumerate(opening[: rng.randrange(len(opening)) + 1]):
            disk.apply(at, event)
        second = rng.choice(MODES)
        self._checker.write(disk.after_power_cut(second, rng))
        found = self._checker.check(self._kind, self._level, is_shared=self._is_shared)
        self._result.again += 1
        self._add(index, f"{mode}, then {second}", history.judge(found, self._kind))

    def _add(self, index: int, mode: str, verdict: Verdict) -> None:
        self._result.counts[verdict.kind] += 1
        if verdict.kind != "sound":
            self._result.examples.append((index, mode, verdict))


def simulate_workload(shim: Path, checker: Checker, folder: Path, workload: str, level: str, disks: int, seed: int,
                      first: str | None = "start", last: str | None = None) -> Result:
    """Record a workload, and check about so many disks. The power fails between two marks of the workload.

    None for a mark is the beginning or the end of the recording.
    """
    events = record(shim, folder, "tests.power_cuts.workloads", workload, level, seed)
    start = 0 if first is None else _index(events, first)
    end = len(events) if last is None else _index(events, last) + 1
    root = Path(os.path.realpath(folder / "disk"))
    simulation = Simulation(events, root, checker, kind_of(workload), level, Random(f"{workload} {level} {seed}"))
    return simulation.run(disks, range(start, end))


def _index(events: list[Event], text: str) -> int:
    return next(at for at, event in enumerate(events) if event.words == [text])
