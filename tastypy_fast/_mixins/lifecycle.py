"""Open and close stores, for the private and the shared classes."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from tastypy_fast._core.handles import PodHandle
from tastypy_fast._core.write_cache import WriteCache
from tastypy_fast._shared.handles import SharedPodHandle
from tastypy_fast._store import registry
from tastypy_fast._store.integrity import find_violations
from tastypy_fast._store.options import Options
from tastypy_fast._store.store import Store
from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError
from tastypy_fast.types import Durability, Mode

__all__ = ["LifecycleMixin"]

Self = TypeVar("Self", bound="LifecycleMixin")


class LifecycleMixin:
    """The part of a store that opens it, shows its options and closes it.

    The handle has ``_detach()``. The class has a ``close()`` that saves and calls ``_let_go()``.
    """

    _options: Options
    _store: Store
    _cache: WriteCache
    _finalizer: weakref.finalize  # type: ignore[type-arg]  # it has type parameters in typeshed only
    _detach: Callable[[], None]
    close: Callable[[], None]

    def _acquire(self, path: str | os.PathLike[str], options: Options, store_type: type[Store],
                 make_cache: Callable[[Any], WriteCache], clone: bool) -> None:
        """Open the files, or join the instances that this process has on them."""
        self._options = options
        self._store, self._cache = registry.acquire(path, options, store_type, make_cache, clone)
        # Sync and close an instance when it is garbage collected, as a file does.
        self._finalizer = weakref.finalize(self, registry.finish, self._store, self._cache)
        self._finalizer.atexit = False

    def _let_go(self) -> None:
        """Release this instance. The last one saves and closes the store. If that fails, it raises and stays open."""
        registry.release(self._store, self._cache)
        self._finalizer.detach()
        self._detach()

    def _by_path(self, arguments: dict[str, Any]) -> tuple[Any, ...]:
        """Return what ``__reduce__()`` returns, to pickle the path and the arguments of the class, not the data.

        The other side opens the store. The attributes of a subclass are pickled, too.
        """
        added = {name: value for name, value in vars(self).items() if name not in _OWN_ATTRIBUTES}
        return _opened, (type(self), self.path, arguments), added or None

    def __enter__(self: Self) -> Self:
        if self.closed:
            # This raises the error for a closed store.
            len(self)  # type: ignore[arg-type]
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def path(self) -> str:
        """The folder of the store, resolved."""
        return str(self._store.path)

    @property
    def mode(self) -> Mode:
        """``"w"`` if this instance may write, ``"r"`` if it only reads."""
        return self._options.mode  # type: ignore[return-value]

    @property
    def durability(self) -> Durability:
        """How durable a commit is: a level of ``types.Durability``, such as ``"process"``."""
        return self._options.durability  # type: ignore[return-value]

    @property
    def gzipped(self) -> bool:
        """Whether values are stored compressed if that makes them smaller."""
        return self._options.gzipped

    @property
    def file_size(self) -> int:
        """The number of lines in each file that ``export_json()`` writes."""
        return self._options.file_size

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called on this instance."""
        return not self._finalizer.alive or self._cache.closed

    def _refuse_violations(self) -> None:
        """Raise an error if an invariant of the data on disk is violated. The caller holds the store's lock."""
        found = list(find_violations(self._store))
        if found:
            raise PersistentOrderedDictIntegrityError(f"the store at {self.path} is damaged: {'; '.join(found[:5])}")


# The attributes that are not pickled. typing sets ``__orig_class__`` for SharedPOD[str, int](path), and its types may
# be local to this process.
_OWN_ATTRIBUTES = {"_options", "_sync_at", "_max_tries", "_store", "_cache", "_finalizer", "__orig_class__"}


def _opened(cls: type[Any], path: str, arguments: dict[str, Any]) -> Any:
    # Do not call the class, because the constructor of a subclass may have other parameters.
    own: Any = next(base for base in cls.__mro__ if base.__module__.startswith("tastypy_fast."))
    store: Any = (PodHandle if issubclass(cls, PodHandle) else SharedPodHandle).__new__(cls)
    own.__init__(store, path, **arguments)
    return store
