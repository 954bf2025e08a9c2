"""``PersistentOrderedDict``: a dict on disk that keeps the order in which keys were added."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, MutableMapping
from typing import Any, ClassVar, NoReturn, TypeVar

from tastypy_fast._core.key_codec import encode_key
from tastypy_fast._core.set_proxy import DeepProxy, Operation, is_done
from tastypy_fast._core.write_cache import WriteCache
from tastypy_fast._mixins.display import DisplayMixin
from tastypy_fast._mixins.import_export import ImportExportMixin
from tastypy_fast._mixins.iteration import IterationMixin
from tastypy_fast._mixins.pairs import pairs_of
from tastypy_fast._store import registry
from tastypy_fast._store.integrity import find_violations
from tastypy_fast._store.options import Options, at_least
from tastypy_fast._store.store import Store
from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError
from tastypy_fast.types import Key, Pairs

__all__ = ["DEFAULT_FILE_SIZE", "DEFAULT_SYNC_AT", "POD", "PersistentOrderedDict"]

DEFAULT_FILE_SIZE = 1000
DEFAULT_SYNC_AT = 1000

_ABSENT = object()
Self = TypeVar("Self", bound="PersistentOrderedDict")


class PersistentOrderedDict(DisplayMixin, IterationMixin, ImportExportMixin, MutableMapping[Any, Any]):  # type: ignore[misc]  # keys() are lists
    """A dict that keeps itself on disk, in the order in which its keys were added.

    ``path`` is a folder, made when it is not there; ``~`` at its start is the home folder.
    ``init`` is a mapping or an iterable of pairs, applied as by ``update(init)``. With ``gzipped`` values are
    stored compressed where that makes them smaller.
    ``sync_at`` is the number of dirty values at which the store syncs by itself. ``file_size`` is the number
    of lines in each file when a store is written out in the original's JSON format. Instances on one path in
    one process share what they have in memory, unless ``clone`` is False. ``mode="r"`` only reads, also while
    another process writes, and sees its last sync. ``durability`` is ``"full"``, ``"normal"`` or
    ``"process"``: what a power cut may take (the table is in the README; a killed process loses nothing that
    was synced at any of them).

    Keys are ``str``, ``int`` and tuples of these. Values are JSON: what ``json.dumps`` takes, and numpy's
    numbers and arrays. A value is stored as it is when it is assigned. A list or dict that was read by keying
    is watched, and saved with the next sync if it was changed. With ``mode="r"``, and in a forked child, it is a copy.

    Costs: assigning does not touch the disk; every ``sync_at`` changes there is one commit. Reading a key
    that is not in memory is two looks into the memory-mapped file, O(log n). Opening costs the same at any
    size. Memory holds what was changed since the last sync, not the store.

    Raises StoreInUseError when another process has the store open for writing, StorePathError,
    NotAStoreError, StoreNotFoundError (``mode="r"``), StoreKindError, StoreConflictError, NewerFormatError and
    PersistentOrderedDictIntegrityError for a path that cannot be opened as asked, TypeError and ValueError
    for arguments that make no sense. None of these changes anything on disk.

    >>> pod = PersistentOrderedDict(path)
    >>> pod["b"] = [1]
    >>> pod["a"] = {"x": None}
    >>> pod["b"].append(2)
    >>> pod.close()
    >>> with PersistentOrderedDict(path) as pod:
    ...     print(pod.items())
    [('b', [1, 2]), ('a', {'x': None})]
    """

    _kind: ClassVar[bytes] = b"dict"
    _max_tries = 0
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        path: str | os.PathLike[str],
        init: Pairs = {},
        gzipped: bool = False,
        file_size: int = DEFAULT_FILE_SIZE,
        sync_at: int = DEFAULT_SYNC_AT,
        clone: bool = True,
        *,
        mode: str = "w",
        durability: str = "normal",
    ) -> None:
        options = Options(self._kind, mode, durability, gzipped, file_size)
        sync_at = at_least("sync_at", sync_at, 1)
        self._options = options
        self._store: Store
        self._store, cache = registry.acquire(path, options, Store, self._make_cache, clone)
        self._cache = cache
        # An instance that nobody refers to any more syncs and lets go, as a file does.
        self._finalizer = weakref.finalize(self, registry.finish, self._store, cache)
        self._finalizer.atexit = False
        self._attach(cache, sync_at, self._max_tries)
        try:
            self.update(init)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _make_cache(store: Store) -> WriteCache:
        return WriteCache(store)

    # What it is

    @property
    def path(self) -> str:
        """The folder of the store, resolved."""
        return self._store.path

    @property
    def mode(self) -> str:
        """``"w"`` or ``"r"``."""
        return self._options.mode

    @property
    def durability(self) -> str:
        """``"full"``, ``"normal"`` or ``"process"``."""
        return self._options.durability

    @property
    def gzipped(self) -> bool:
        """Whether values are stored compressed where that makes them smaller."""
        return self._options.gzipped

    @property
    def file_size(self) -> int:
        """The number of lines in each file when the store is written out in the original's JSON format."""
        return self._options.file_size

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called on this instance."""
        return not self._finalizer.alive or self._cache.closed

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} is private to its process and can be neither pickled nor copied; "
            f"pass its path, or use the shared class of the same name where several processes write"
        )

    # The end

    def close(self) -> None:
        """Sync, and let go of the store; the files are closed with the last instance on the path.

        Any later use raises CalledClosedTrackerError, but closing again does nothing. When the sync fails
        (DiskFullError, UnstorableValueError) the store stays open, with what it could not save.

        >>> pod = PersistentOrderedDict(path)
        >>> pod.close()
        >>> pod["a"]
        Traceback (most recent call last):
        tastypy_fast.exceptions.CalledClosedTrackerError: this store was closed; open it again to use it
        """
        if not self._finalizer.alive:
            return
        # (closed already where an interrupt came into the middle of this, which completes it then)
        if not self._cache.closed:
            self._cache.sync(True)
        registry.release(self._store, self._cache)
        self._finalizer.detach()
        self._detach()

    def __enter__(self: Self) -> Self:
        self._open_cache  # noqa: B018  (raises when it was closed)
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Saving

    def sync(self) -> None:
        """Write every dirty value. The data is on the disk when this returns, at any durability.

        Cost: the JSON of what was assigned or watched since the last sync, and one flushed commit. Raises
        DiskFullError, with everything still in memory, and UnstorableValueError for a value that was changed
        to something that JSON cannot hold, after saving all others.

        >>> pod = PersistentOrderedDict(path)
        >>> pod["a"] = 1
        >>> pod.sync()
        >>> pod.dirty()
        set()
        """
        self._open_cache.sync(True)

    def sync_key(self, key: Key) -> None:
        """Write the value of one key, or its deletion, and nothing else; on the disk when this returns.

        Raises KeyError when the key is neither there nor deleted since the last sync. Cost: one flushed commit.

        >>> pod = PersistentOrderedDict(path, init={"a": 1, "b": 2})
        >>> pod.sync_key("a")
        >>> pod.dirty()
        {'b'}
        """
        self._open_cache.sync_one(encode_key(key), key)

    def mark_dirty(self, key: Key) -> None:
        """Have the next sync write the value of ``key``, changed or not. Raises KeyError when it is not there.

        What ``iteritems()`` has just handed out is a copy. After changing it in the loop, this saves it. When the
        object that was read by keying was changed too, the copy counts: it takes its place, as by assignment.
        A copy is not saved when it was not changed, when its key was assigned after the loop handed it out, or when its
        value was saved with other changes since. Copies in the lists of ``items()`` and ``values()`` are never saved.

        >>> pod = PersistentOrderedDict(path, init={"a": [1], "b": [2]})
        >>> pod.sync()
        >>> for key, value in pod.iteritems():
        ...     value.append(0)
        ...     pod.mark_dirty(key)
        >>> pod.values()
        [[1, 0], [2, 0]]
        """
        self._open_cache.mark(encode_key(key), key, self._threshold)

    def dirty(self) -> set[Any]:
        """The keys whose value, existence or status differs between memory and disk: what a sync would write.

        Cost: the JSON of each value that was read by keying since the last sync.

        >>> pod = PersistentOrderedDict(path, init={"a": [], "b": []})
        >>> pod.sync()
        >>> pod["a"].append(1)
        >>> pod["b"]
        []
        >>> pod.dirty()
        {'a'}
        """
        return set(self._open_cache.dirty_keys())

    def revert(self) -> None:
        """Drop every change since the last sync, of all instances that share this memory. Cost: O(1).

        What was handed out before is not watched any more, because its changes were dropped: read it again.

        >>> pod = PersistentOrderedDict(path, init={"a": 1})
        >>> pod.sync()
        >>> pod["a"] = 2
        >>> pod.revert()
        >>> pod["a"]
        1
        """
        self._open_cache.revert()

    # Changing

    @property
    def set(self) -> DeepProxy:
        """A place to change what is stored, for code that moves between the private and the shared classes.

        Every change that is made through it is saved, at any depth. With ``mode="r"``, and in a forked child, it raises
        ReadOnlyStoreError or ForkedStoreError and does nothing. To read, leave off ``.set``.

        >>> pod = PersistentOrderedDict(path)
        >>> pod.set["a"] = {"n": 1, "list": []}
        >>> pod.set["a"]["n"] += 41
        >>> pod.set["a"]["list"].append("x")
        >>> pod["a"]
        {'n': 42, 'list': ['x']}
        """
        self._open_cache  # noqa: B018
        return DeepProxy(self._apply)

    @set.setter
    def set(self, value: object) -> None:
        # "pod.set |= {...}" ends with this assignment.
        if not is_done(value, ()):
            raise AttributeError("assign to .set[key], not to .set")

    def _apply(self, operation: Operation) -> Any:
        # Asked first: a store that cannot be written hands out copies, and a change of a copy would be lost.
        if not self._open_cache.writable:
            raise self._store.refuse_write()
        return operation.perform(self)

    def update(self, /, *mappings: Any, **pairs: Any) -> None:
        """Assign the pairs of mappings (``iteritems()``, ``items()``), of iterables of pairs, and of keywords.

        Later ones win. Pairs are assigned one by one: when one is refused, those before it are there.
        Cost as of the single assignments; iterables are never held whole.

        >>> pod = PersistentOrderedDict(path)
        >>> pod.update({"a": 1}, [("b", 2)], c=3)
        >>> pod.items()
        [('a', 1), ('b', 2), ('c', 3)]
        """
        for mapping in mappings:
            self._assign_all(pairs_of(mapping))
        self._assign_all(iter(pairs.items()))

    def __ior__(self: Self, other: Pairs) -> Self:
        self.update(other)
        return self

    def setdefault(self, key: Key, default: Any = None) -> Any:
        """The value of ``key``, which is set to ``default`` first if it is not there; watched as by keying.

        >>> pod = PersistentOrderedDict(path)
        >>> pod.setdefault("a", []).append(1)
        >>> pod["a"]
        [1]
        """
        with self._one_step:
            if key not in self:
                self[key] = default
            return self[key]

    def pop(self, key: Key, default: Any = _ABSENT) -> Any:
        """Delete ``key`` and return its value; ``default``, if given, or KeyError when it is not there.

        >>> pod = PersistentOrderedDict(path, init={"a": 1})
        >>> pod.pop("a"), pod.pop("a", None)
        (1, None)
        """
        with self._one_step:
            try:
                value = self[key]
            except KeyError:
                if default is _ABSENT:
                    raise
                return default
            del self[key]
            return value

    def popitem(self, last: bool = True) -> tuple[Any, Any]:
        """Remove the pair that was added last, or first, and return it. Raises KeyError on an empty store.

        >>> pod = PersistentOrderedDict(path, init={"a": 1, "b": 2, "c": 3})
        >>> pod.popitem(), pod.popitem(last=False)
        (('c', 3), ('a', 1))
        """
        if not isinstance(last, bool):
            raise TypeError(f"last must be True or False, not {last!r}")
        with self._one_step:
            for key in reversed(self) if last else self:
                return key, self.pop(key)
        raise KeyError(f"{type(self).__name__} is empty")

    def clear(self) -> None:
        """Delete every key. Cost: as of so many deletions.

        >>> pod = PersistentOrderedDict(path, init={"a": 1})
        >>> pod.clear()
        >>> len(pod)
        0
        """
        for key in self:
            del self[key]

    def __eq__(self, other: object) -> bool:
        """Whether a mapping has the same pairs, in any order. Cost: a walk, as far as they are equal."""
        if not isinstance(other, Mapping):
            return NotImplemented
        if self is other:
            return True
        if len(self) != len(other):
            return False
        return all(other.get(key, _ABSENT) == value for key, value in self.iteritems())

    # For tests

    def _check(self) -> None:
        """Raise when an invariant of the store does not hold, in memory or on disk. Cost: a walk over all."""
        cache = self._open_cache
        with self._store.lock:
            cache.check()
            found = list(find_violations(self._store))
        if found:
            raise PersistentOrderedDictIntegrityError(f"the store at {self.path} is damaged: {'; '.join(found[:5])}")


POD = PersistentOrderedDict
