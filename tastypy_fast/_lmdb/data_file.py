"""A look at LMDB's data file before the engine gets it, which trusts what it maps into memory.

The engine ends the process (SIGBUS, a failed assertion) on a file that was truncated and on many that were
overwritten. What a constant number of reads can tell is looked at here: both meta pages, the outermost
pages of every tree, that the free list is of the same transaction as the trees, and that every page which the
file is too short for is a free one. (A sound file may be too short: pages that were taken and given back within
one transaction are never written.) Damage deep in a tree is found only by a walk over all pages (_page_check).
"""

from __future__ import annotations

import os
from contextlib import suppress
from struct import error as struct_error
from struct import unpack_from

from tastypy_fast._lmdb.page_format import (
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


def find_damage(name: str, databases: dict[bytes, int]) -> str | None:
    """Why the data file ``name`` is damaged, or None. ``databases`` are those it has to have, with LMDB's flags.

    Safe while another process writes: a finding counts only if no commit came in between. Nobody in this
    process has the file open: closing it here would drop the engine's locks on it.
    """
    descriptor = open_regular(name, os.O_RDONLY)
    try:
        reason: str | None = None
        for _ in range(5):
            try:
                meta = newest_meta(descriptor)
            except (Damage, struct_error) as damage:  # perhaps torn by a commit
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
                reason = None  # a busy writer, no verdict
            except (Damage, struct_error) as damage:
                reason = str(damage)
        return reason
    finally:
        os.close(descriptor)


def find_databases(name: str) -> list[bytes]:
    """The names of the databases in a data file, as far as one page tells; none when it does not parse.

    Safe while another process writes: the page counts only if it was not given up, and taken for something else,
    while it was read. None, too, where a writer is so busy that this cannot be said.
    """
    descriptor = open_regular(name, os.O_RDONLY)
    try:
        for _ in range(5):
            with suppress(Damage, struct_error):
                meta = newest_meta(descriptor)
                if meta.main.root == NO_ROOT:
                    return []
                reader = PageReader(descriptor, meta)
                nodes = reader.nodes(meta.main.root, meta.main.depth == 1, "the list of databases")
                names = [key for _, key, _, _ in nodes]
                if newest_meta(descriptor) == meta:
                    return names
    finally:
        os.close(descriptor)
    return []


def other_format(name: str) -> int | None:
    """The number of the file format, where the data file is one of LMDB's and has another than FILE_FORMAT."""
    descriptor = open_regular(name, os.O_RDONLY)
    try:
        head = os.pread(descriptor, 32, 0)
    finally:
        os.close(descriptor)
    # (the head of a page is 16 bytes long in LMDB 0.9 and 24 in 1.0)
    for at in (16, 24):
        if len(head) >= at + 8:
            magic, version = unpack_from("=II", head, at)
            if magic == MAGIC and version != FILE_FORMAT and version < 256:
                return int(version)
    return None


def last_transaction(name: str) -> int | None:
    """The number of the last commit to a data file; None when that does not parse."""
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
            # Numbers only grow. To go on after the greatest one of 64 bits would be to begin again.
            raise Damage(f"database {name!r} has a number that no store gives")
    _check_length(descriptor, meta, reader)


def _check_length(descriptor: int, meta: Meta, reader: PageReader) -> None:
    """Every page that the file is too short for must be a free one."""
    size = os.fstat(descriptor).st_size
    end = size // meta.page_size
    missing = max(0, meta.last_page + 1 - end)
    # The free list names no more pages than it has room for, which bounds what is read even if last_page is wild.
    room = (meta.free.leaves + meta.free.overflows) * meta.page_size // 8
    if missing and missing <= min(meta.last_page + 1 - reader.claimed, room):
        missing -= len({page for page in reader.free_pages() if end <= page <= meta.last_page})
    if missing:
        raise Damage(f"it is truncated: it ends after {size} bytes, {missing} pages too early")
