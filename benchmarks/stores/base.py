"""The interface of all stores.

An ordered dict has the methods ``fill``, ``overwrite``, ``read``, ``read_many``, ``items``, ``keys``, ``update``,
``delete``, ``get``, ``__len__`` and ``__iter__``. ``for_reading`` opens it for reading only. A list of tasks has
``add``, ``loop``, ``mark_done``, ``todo``, ``crawl`` and ``counts``. Both have ``sync`` and ``close``.

A store that cannot do something lacks the method, and the workloads that need it skip the store. A class may name in
``measured`` the only methods that are measured. Batches are lists of at most 1,000 items (``BATCH``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

BATCH = 1000

Batches = Iterable[list[Any]]
# What a crawler finds at a URL: facts to store, and links.
Visit = Callable[[str], tuple[dict[str, Any], list[str]]]


class StoreInfo(NamedTuple):
    """The description of a store, and its classes. A class is None if the store has no such thing.

    ``power_loss`` is what a power loss can undo. ``durable`` is when a change is safe from power loss, in a few words.
    """

    version: str
    settings: str
    power_loss: str
    dict_class: Any
    tasks_class: Any
    about: str
    durable: str

    @property
    def promise(self) -> str:
        """Return the settings and their consequence."""
        return f"{self.settings}: {self.power_loss}"

    def facts(self) -> dict[str, str]:
        """Return what the results file stores about it."""
        return {"version": self.version, "promise": self.promise, "about": self.about, "flushed": self.durable}


class Package(NamedTuple):
    """An optional package that provides a store: the module to import, and the name of the distribution."""

    module: str
    distribution: str
    info: StoreInfo


class SortedDict:
    """A dict that yields its keys in sorted order."""

    order = "sorted"

    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError


class OrderedDict(SortedDict):
    """A dict that yields its keys in the order in which they were added. An overwritten key keeps its place."""

    order = "added"

    def keys(self) -> Iterator[str]:
        """Yield all keys."""
        return iter(self)


class Tasks:
    """A list of tasks. ``counts()`` returns the numbers of all tasks, of done tasks, and of tried tasks."""

    counts: Callable[[], tuple[int | None, int | None, int | None]]

    def verified_counts(self) -> tuple[int | None, int | None, int | None]:
        """Return the counts to verify a workload with. None is a count that the store does not know."""
        return self.counts()

    def remaining(self) -> int:
        """Return the number of tasks that are not done, to verify a workload with."""
        total, done, _ = self.verified_counts()
        assert total is not None
        assert done is not None
        return total - done
