"""Validate the LMDB data file before opening it, because LMDB trusts what it maps into memory.

LMDB ends the process with SIGBUS or a failed assertion on a truncated file and on many overwritten files. This module
makes the checks that need a constant number of reads:

- both meta pages, and the outermost pages of every tree, are sound,
- the free list belongs to the same transaction as the trees,
- every page beyond the end of the file is free. A sound file may be that short, because pages that were allocated and
  freed within one transaction are never written.

Only a walk over all pages finds damage deep in a tree: see page_check.
"""

from __future__ import annotations

import os
from contextlib import suppress
from struct import error as struct_error
from struct import unpack_from

from tastypy_fast._lmdb.page_format import (
    DEEPEST,
    FILE_FORMAT,
    INTEGER_KEY,
    MAGIC,
    NO_ROOT,
    NUMBER,
    RECORD,
    SUB_DATA,
    Damage,
    Meta,
    PageReader,
    Record,
    check_free_list_age,
    newest_meta,
    read_free_record,
)
from tastypy_fast._lmdb.safe_files import open_regular

__all__ = ["find_damage", "find_databases", "last_transaction", "other_format"]


def find_damage(descriptor: int, databases: dict[bytes, int]) -> str | None:
    """Return why an open data file is damaged, or None.

    ``databases`` are the expected databases with LMDB's flags. This is safe while another process writes, because a
    finding counts only if there was no commit in between.
    """
    reason: str | None = None
    for _ in range(5):
        try:
            meta = newest_meta(descriptor)
        except (Damage, struct_error) as damage:  # perhaps a commit was writing it
            reason = str(damage)
            continue
        try:
            _check_trees(descriptor, meta, databases)
            return None
        except (Damage, struct_error) as damage:
            reason = str(damage)
        try:
            if newest_meta(descriptor) == meta:
                return reason
            reason = None  # a commit came in between
        except (Damage, struct_error) as damage:
            reason = str(damage)
    return reason


def find_databases(name: str) -> list[bytes]:
    """Return the first keys of the main database in a data file, which name databases. Empty if they cannot be read.

    This is safe while another process writes, because the pages count only if there was no commit in between. The
    result is also empty if there was a commit during each attempt.
    """
    descriptor = open_regular(name, os.O_RDONLY)
    try:
        for _ in range(5):
            with suppress(Damage, struct_error):
                meta = newest_meta(descriptor)
                if meta.main.root == NO_ROOT:
                    return []
                reader = PageReader(descriptor, meta)
                page = meta.main.root
                for level in range(1, min(meta.main.depth, DEEPEST) + 1):
                    nodes = reader.nodes(page, level == meta.main.depth, "the list of databases")
                    page = nodes[0][0]
                names = [key for _, key, _, _ in nodes]
                if newest_meta(descriptor) == meta:
                    return names
    finally:
        os.close(descriptor)
    return []


def other_format(descriptor: int) -> int | None:
    """Return the number of LMDB's file format if it is not FILE_FORMAT, and None for FILE_FORMAT and other files."""
    head = os.pread(descriptor, 32, 0)
    # The header of a page has 16 bytes in LMDB 0.9 and 24 in 1.0.
    for at in (16, 24):
        if len(head) >= at + 8:
            magic, version = unpack_from("=II", head, at)
            if magic == MAGIC and version != FILE_FORMAT and version < 256:
                return int(version)
    return None


def last_transaction(name: str) -> int | None:
    """Return the number of the last committed transaction. None if the meta pages cannot be read."""
    descriptor = open_regular(name, os.O_RDONLY)
    try:
        return newest_meta(descriptor).transaction
    except (Damage, struct_error):
        return None
    finally:
        os.close(descriptor)


def _check_trees(descriptor: int, meta: Meta, databases: dict[bytes, int]) -> None:
    reader = PageReader(descriptor, meta)
    found: dict[bytes, Record] = {}

    def note_database(key: bytes, data: bytes, flags: int) -> None:
        if flags & SUB_DATA:
            found[key] = Record(*RECORD.unpack(data))

    newest = reader.check_tree(meta.free, "the free list", lambda key, data, flags: read_free_record(meta, key, data))
    check_free_list_age(meta, newest)
    reader.check_tree(meta.main, "the list of databases", note_database)
    if found:
        for name, flags in databases.items():
            if name in found and found[name].flags != flags:
                raise Damage(f"the flags of database {name!r} are {found[name].flags:#x}")
    for name, record in found.items():
        greatest = reader.check_tree(record, f"database {name!r}", None)
        if greatest is not None and record.flags & INTEGER_KEY and NUMBER.unpack_from(greatest)[0] < 0:
            # Sequence numbers only increase, and never reach 2**63.
            raise Damage(f"database {name!r} has a negative number")
    _check_length(descriptor, meta, reader)


def _check_length(descriptor: int, meta: Meta, reader: PageReader) -> None:
    """Raise Damage if a page beyond the end of the file is not free."""
    size = os.fstat(descriptor).st_size
    end = size // meta.page_size
    missing = max(0, meta.last_page + 1 - end)
    # Limit the reads by the size of the free list, because last_page may be any number in a damaged file.
    room = (meta.free.leaves + meta.free.overflows) * meta.page_size // 8
    if missing and missing <= min(meta.last_page + 1 - reader.claimed, room):
        missing -= len({page for page in reader.free_pages() if end <= page <= meta.last_page})
    if missing:
        raise Damage(f"it is truncated: it ends after {size} bytes, {missing} pages too early")
