"""What all stores have in common.

An ordered dict has ``fill``, ``overwrite``, ``read``, ``items``, ``keys``, ``update``, ``delete``, ``get``, its length
and an iterator over its keys; ``for_reading`` opens it for reading only. A list of tasks has ``add``, ``loop``,
``mark_done``, ``todo``, ``crawl``, ``counts``; both have ``sync`` and ``close``. A store that has no such thing lacks
the method, and is left out there. Batches are lists of at most 1,000 (``BATCH``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

BATCH = 1000

Batches = Iterable[list[Any]]
# What a crawler finds at a URL: facts to keep, and links.
Visit = Callable[[str], tuple[dict[str, Any], list[str]]]


class Peer(NamedTuple):
    """What is measured under one name. A class is None where there is no such thing. ``promise`` is what is left after
    a kill and a power cut, ``flushed`` the same in few words for the tables, ``about`` licence and upkeep."""

    version: str
    promise: str
    dict_class: Any
    tasks_class: Any
    about: str
    flushed: str

    def facts(self) -> dict[str, str]:
        return {"version": self.version, "promise": self.promise, "about": self.about, "flushed": self.flushed}


class Unordered:
    """A dict that hands its keys out sorted."""

    order = "sorted"

    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError


class Ordered(Unordered):
    """A dict that keeps its keys in the order in which they were added, each in its place when it is overwritten."""

    order = "added"

    def keys(self) -> Iterator[str]:
        return iter(self)


class Tasks:
    """A list of tasks. ``counts()`` is how many there are, are done, were tried."""

    counts: Callable[[], tuple[int | None, int | None, int | None]]

    def tally(self) -> tuple[int | None, int | None, int | None]:
        """The same, to verify a workload with: None for what it does not know."""
        return self.counts()

    def left(self) -> int:
        """How many are not done, to verify with."""
        total, done, _ = self.tally()
        assert total is not None
        assert done is not None
        return total - done
