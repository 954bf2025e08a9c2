"""Open a store of any class for inspection, even if another process has it open."""

from __future__ import annotations

from typing import Any

from tastypy_fast._store.options import KINDS, Options
from tastypy_fast._store.store import Store
from tastypy_fast.exceptions import StoreKindError

__all__ = ["ReadOnlyStore", "open_for_inspection"]


class ReadOnlyStore(Store):
    """A store that is open only for reading. It reads the claims of a shared store, too."""

    def _open_databases(self) -> None:
        super()._open_databases()
        self.claims = self.db.open_db(None)

    def file_size(self) -> Any:
        """Return the option ``file_size`` that is stored on disk."""
        with self.db.begin(db=self.meta) as txn:
            return txn.get(b"file_size")


def open_for_inspection(path: str) -> ReadOnlyStore:
    """Open a store of any kind for reading. Raises the errors of opening with ``mode="r"``, except StoreKindError."""
    for kind in KINDS:
        try:
            return ReadOnlyStore(path, Options(kind, "r", "normal", False, 1))
        except StoreKindError:
            continue
    raise AssertionError("every store has one of the kinds")
