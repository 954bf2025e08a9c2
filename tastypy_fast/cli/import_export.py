"""Implement ``export`` and ``import``, for JSON Lines and for the files of the original tastypy."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from typing import Any

import click

from tastypy_fast import (
    DamagedInputError,
    PersistentOrderedDict,
    ProgressTracker,
    StoreInUseError,
    StoreNotFoundError,
)
from tastypy_fast._formats.jsonl import JsonlReader
from tastypy_fast._formats.tastypy_json import TastypyJsonReader
from tastypy_fast._mixins.import_export import make_store
from tastypy_fast.cli.exit_codes import USAGE, CommandError
from tastypy_fast.cli.formatting import as_json, print_line, quantity
from tastypy_fast.cli.key_filters import PathType, json_option, store_argument
from tastypy_fast.cli.open_store import TASK_FIELDS, StoreIdentity, identify_store, open_reader, open_writer

__all__ = ["export", "import_"]

JSON_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
FORMATS = ("use NAME.jsonl, NAME.jsonl.gz or NAME.jsonl.zst for JSON Lines, - for JSON Lines on stdin or stdout, or a "
           "folder for the files of the original tastypy")
Input = TastypyJsonReader | JsonlReader
# Yields (number of the line, key, value).
Lines = Iterator[tuple[int, Any, Any]]

CLASSES: dict[str, Any] = {"tracker": ProgressTracker, "dict": PersistentOrderedDict}


def is_json_lines(name: str) -> bool:
    """Return whether a path names JSON Lines. Otherwise it names a folder. Raises CommandError for other files."""
    if name.endswith(JSON_LINES):
        return True
    suffix = os.path.splitext(name)[1]
    if suffix and not os.path.isdir(name) and not name.endswith(os.sep):
        raise CommandError(f"the name {name!r} does not select a format; {FORMATS} (end the name of a folder that has "
                           f"a dot with {os.sep})", USAGE)
    return False


@click.command()
@store_argument
@click.argument("target", type=PathType(allow_dash=True))
def export(store: str, target: str) -> None:
    """Export a store to other formats, in the order of its keys. Other processes may write during the export.

    The name of TARGET selects the format. NAME.jsonl is JSON Lines ({"key": ..., "value": ...}), .jsonl.gz and
    .jsonl.zst are the same compressed, and - is the same on stdout. A folder, which must be new or empty, gets the
    numbered JSON files of the original tastypy. An existing file is not replaced.

    \b
    tastypy-fast export crawl crawl.jsonl.zst
    tastypy-fast export crawl - | jq .value.size
    tastypy-fast export crawl crawl-2017/
    """
    lines = target == "-" or is_json_lines(target)
    with open_reader(store) as reader:
        source: Any = reader
        if target == "-":
            source.export_jsonl(sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        count = source.export_jsonl(target) if lines else source.export_json(target)
    print_line(f"wrote {quantity(count, 'line')} to {target}")


@click.command(name="import")
@click.argument("source", type=PathType(exists=True, allow_dash=True))
@store_argument
@click.option("--tracker", "kind", flag_value="tracker", help="If a new store is made, make it a tracker.")
@click.option("--dict", "kind", flag_value="dict", help="If a new store is made, make it a dict.")
@json_option
def import_(source: str, store: str, kind: str | None, as_object: bool) -> None:
    """Import the output of export into a store, in order.

    The name of SOURCE selects the format, as TARGET does for export. JSON Lines can be imported into a new store or an
    existing one, where keys get their new values. The files of the original tastypy always make a new store. A new
    store appears complete or not at all.

    Without --tracker or --dict, a new store is a tracker if the first value is a task, which has _done, _aborted and
    _tries. Then all values must be tasks. Otherwise it is a dict. For an empty input, give one of the two options.

    \b
    tastypy-fast import crawl.jsonl.gz crawl
    tastypy-fast import crawl-2017 crawl --tracker
    """
    given: Input
    if source == "-" or is_json_lines(source):
        given = JsonlReader(sys.stdin.buffer if source == "-" else source)
    else:
        given = TastypyJsonReader(source, None)
    there = _found_at(store)
    found = None if there is None else "tracker" if there.is_tracker else "dict"
    if found and kind not in (None, found):
        raise CommandError(f"the store at {store} exists already, and is a {found}; leave the option out, or use a new "
                           f"path", USAGE)
    kind = kind or found
    if there is None or isinstance(given, TastypyJsonReader):
        count, kind = _import_new(given, store, kind)
    else:
        with _open(store, there) as target:
            count = target.import_jsonl(sys.stdin.buffer if source == "-" else source)
    new = f", a new {kind}" if there is None else ""
    result = {"lines": count, "kind": kind, "new": there is None}
    print_line(as_json(result) if as_object else f"read {quantity(count, 'line')} into {store}{new}")


def _found_at(store: str) -> StoreIdentity | None:
    try:
        return identify_store(store)
    except StoreNotFoundError:
        return None


def _open(store: str, there: StoreIdentity) -> Any:
    """Open an existing store for an import: privately, which is faster, unless other processes share it."""
    try:
        return CLASSES["tracker" if there.is_tracker else "dict"](store, file_size=there.file_size)
    except StoreInUseError:
        return open_writer(store)


def _import_new(given: Input, store: str, kind: str | None) -> tuple[int, str]:
    """Make a store from the input, complete or not at all. Returns the number of lines, and the kind of the store."""
    with closing(iter(given)) as entries:
        first = next(entries, None)
        lines: Lines = chain(() if first is None else (first,), entries)
        if kind is None:
            if first is None:
                raise CommandError("the input is empty, so it does not show the kind of the new store; give --tracker "
                                   "or --dict (no store was made)", USAGE)
            kind = "tracker" if _is_task(first[2]) else "dict"
            if kind == "tracker":
                lines = _tasks(given, lines)
        made, count = make_store(CLASSES[kind], store, given, lines)
        made.close()
    return count, kind


def _is_task(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() >= TASK_FIELDS


def _tasks(given: Input, lines: Lines) -> Lines:
    """Yield lines, and refuse the first value that is not a task, because a tracker would turn it into a new task."""
    for line in lines:
        if not _is_task(line[2]):
            raise DamagedInputError(f"{given.where(line[0])}: this value is not a task, but the ones before it "
                                    f"are; give --tracker or --dict")
        yield line
