"""Everything that can be known to be wrong with a store, found in a process of its own (see _apart)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

from tastypy_fast._lmdb.data_file import last_transaction
from tastypy_fast._lmdb.page_check import find_page_faults
from tastypy_fast._lmdb.store_dir import DATA, check_data_file, find_unsafe_files, require_store
from tastypy_fast._store.integrity import find_violations
from tastypy_fast._store.read_only import ReadOnlyStore, look_at
from tastypy_fast.exceptions import (
    NotAStoreError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
    StoreNotFoundError,
    StorePathError,
    UnsafeFileError,
)

__all__ = ["verify_here"]

# More are not told.
MOST = 1000


def verify_here(path: str) -> Iterator[str]:
    """What is wrong with the store at ``path``, a sentence each."""
    try:
        require_store(path)
        odd = [str(error) for error in find_unsafe_files(path)]
        if odd:
            yield from odd
            return
        check_data_file(path, owned=False)
    except UnsafeFileError as error:
        yield str(error)
        return
    except (NotAStoreError, PersistentOrderedDictIntegrityError, StoreNotFoundError, StorePathError) as error:
        yield str(error)
        if os.path.isfile(os.path.join(path, DATA)):
            yield from _page_faults(path)[0]
        return
    found, is_certain = _page_faults(path)
    if found and is_certain:
        yield from found
        return
    try:
        store = look_at(path)
    except (NotAStoreError, PersistentOrderedDictIntegrityError, StoreNotFoundError, UnsafeFileError) as error:
        yield str(error)
        return
    try:
        if found:
            # Another process writes. This read transaction keeps the pages from being overwritten that are read now.
            with store.begin_reading():
                found, _ = _page_faults(path)
        yield from found or _content_faults(store)
    finally:
        store.close()


def _page_faults(path: str) -> tuple[list[str], bool]:
    """What is wrong with the pages, and whether that is certain, because no transaction came in between."""
    name = os.path.join(path, DATA)
    transaction, found = find_page_faults(name)
    return [f"{DATA}: {fault}" for fault in found], transaction == last_transaction(name)


def _content_faults(store: ReadOnlyStore) -> Iterator[str]:
    """What is wrong with what the pages hold."""
    try:
        if not (store.file_size() or b"").isdigit():
            yield "its file_size does not parse"
        found = find_violations(store)
        yield from islice(found, MOST)
        if next(found, None) is not None:
            yield f"and more: these are the first {MOST}"
    except PersistentOrderedDictIntegrityError as error:
        yield str(error)
    except PersistentOrderedDictException:
        raise
    except Exception as error:
        # What nobody has thought of is damage, too: a sound store is walked through to its end.
        yield f"it cannot be walked through ({type(store.translated(error)).__name__}: {error})"
