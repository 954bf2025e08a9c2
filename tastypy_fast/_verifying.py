"""Everything that can be known to be wrong with a store, found in a process of its own (see _apart)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

from tastypy_fast._datafile import last_transaction
from tastypy_fast._engine import page_faults
from tastypy_fast._files import DATA, check_data_file, require_store
from tastypy_fast._integrity import faults
from tastypy_fast._looking import look_at
from tastypy_fast.exceptions import (
    NotAStoreError,
    PersistentOrderedDictIntegrityError,
    StoreNotFoundError,
    StorePathError,
)

__all__ = ["verify_here"]

# More are not told.
MOST = 1000
# So often a file is looked at that grows meanwhile.
LOOKS = 20


def verify_here(path: str) -> Iterator[str]:
    """What is wrong with the store at ``path``, a sentence each."""
    try:
        require_store(path)
        check_data_file(path, owned=False)
    except (NotAStoreError, PersistentOrderedDictIntegrityError, StoreNotFoundError, StorePathError) as error:
        yield str(error)
        if not os.path.isfile(os.path.join(path, DATA)):
            return
        yield from map(_named, page_faults(path))
        return
    found, certain = _look_at_pages(path)
    if found and certain:
        yield from map(_named, found)
        return
    try:
        store = look_at(path)
    except (NotAStoreError, PersistentOrderedDictIntegrityError, StoreNotFoundError) as error:
        yield str(error)
        return
    try:
        if found:
            # Somebody writes. The engine keeps what this reads now from being overwritten.
            with store.begin_reading():
                found = _look_while_it_grows(path)
        yield from map(_named, found)
        if not found:
            if not (store.file_size() or b"").isdigit():
                yield "its file_size does not parse"
            told = list(islice(faults(store), MOST + 1))
            yield from told[:MOST]
            if len(told) > MOST:
                yield f"and more: these are the first {MOST}"
    except PersistentOrderedDictIntegrityError as error:
        yield str(error)
    finally:
        store.close()


def _look_at_pages(path: str) -> tuple[list[str], bool]:
    """What is wrong with the pages, and whether that is certain: nobody has written meanwhile."""
    name = os.path.join(path, DATA)
    before = last_transaction(name)
    found = page_faults(path)
    return found, before is not None and before == last_transaction(name)


def _look_while_it_grows(path: str) -> list[str]:
    """What is wrong with the pages, in a read transaction. lmdb.verify asks how large the file is before it reads which
    transaction is the last: one that comes in between, and makes the file larger, looks like damage. That is gone at
    another look, and damage is not."""
    name = os.path.join(path, DATA)
    for _ in range(LOOKS):
        size = os.stat(name).st_size
        found = page_faults(path)
        if not found or os.stat(name).st_size == size:
            break
    return found


def _named(fault: str) -> str:
    return f"{DATA}: {fault}"
