"""Find the faults of a store, in a subprocess.

It checks the files (``_lmdb.store_dir``), LMDB's pages (``_lmdb.page_check``), and then the content: records, index,
log, statuses and claims against each other (``_store.integrity``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

from tastypy_fast._lmdb.data_file import last_transaction
from tastypy_fast._lmdb.page_check import find_page_faults
from tastypy_fast._lmdb.store_dir import DATA, check_data_file, find_unsafe_files, require_store
from tastypy_fast._store.integrity import find_violations
from tastypy_fast._store.read_only import ReadOnlyStore, open_for_inspection
from tastypy_fast.exceptions import (
    NotAStoreError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
    StoreNotFoundError,
    StorePathError,
    UnsafeFileError,
)
from tastypy_fast.maintenance._as_opened import as_opened

__all__ = ["verify_store"]

# How many faults are yielded at most.
MAX_FAULTS = 1000


def verify_store(path: str) -> Iterator[str]:
    """Yield one sentence for each fault of the store at ``path``."""
    with as_opened(path) as folder:
        yield from _faults(folder)


def _faults(path: str) -> Iterator[str]:
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
        text = str(error)
        yield text
        if os.path.isfile(os.path.join(path, DATA)):
            # The error has the first fault that opening a store finds.
            yield from (fault for fault in _page_faults(path)[0] if fault.removeprefix(f"{DATA}: ") not in text)
        return
    found, is_certain = _page_faults(path)
    if found and is_certain:
        yield from found
        return
    try:
        store = open_for_inspection(path)
    except (NotAStoreError, PersistentOrderedDictIntegrityError, StoreNotFoundError, UnsafeFileError) as error:
        yield str(error)
        return
    try:
        if found:
            # Another process has committed during the check. Repeat it inside a read transaction, because LMDB does not
            # reuse pages that a reader can still see.
            with store.begin_reading():
                found, _ = _page_faults(path)
        yield from found or _content_faults(store)
    finally:
        store.close()


def _page_faults(path: str) -> tuple[list[str], bool]:
    """Return the faults of the pages, and whether they are certain because no transaction was committed meanwhile."""
    name = os.path.join(path, DATA)
    transaction, found = find_page_faults(name)
    return [f"{DATA}: {fault}" for fault in found], transaction == last_transaction(name)


def _content_faults(store: ReadOnlyStore) -> Iterator[str]:
    """Yield the faults of the records, index, statuses and claims."""
    try:
        if not (store.file_size() or b"").isdigit():
            yield "the file_size in meta cannot be parsed"
        found = find_violations(store)
        yield from islice(found, MAX_FAULTS)
        if next(found, None) is not None:
            yield f"there are more faults; these are the first {MAX_FAULTS}"
    except PersistentOrderedDictIntegrityError as error:
        yield str(error)
    except PersistentOrderedDictException:
        raise
    except Exception as error:
        # Report any other error as damage, because a sound store can be read to its end.
        yield f"the store cannot be read to its end ({type(store.translated(error)).__name__}: {error})"
