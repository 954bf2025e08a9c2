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
from tastypy_fast._formats.jsonl import JsonlReader, write_jsonl
from tastypy_fast._formats.tastypy_json import TastypyJsonReader
from tastypy_fast._mixins.import_export import make_store
from tastypy_fast.cli.exit_codes import CANNOT_OPEN, OTHER_ERROR, USAGE, CommandError
from tastypy_fast.cli.formatting import TerminalWriter, as_json, open_stdin, print_line, printable, quantity
from tastypy_fast.cli.key_filters import PathType, json_option, store_argument
from tastypy_fast.cli.open_store import TASK_FIELDS, StoreIdentity, identify_store, open_reader, open_writer

__all__ = ["export", "import_"]

FILES = "tastypy"
# The formats, and the endings of file names by which JSON Lines are compressed.
FORMATS = {"jsonl": "", "jsonl.gz": ".gz", "jsonl.zst": ".zst", FILES: ""}
Input = TastypyJsonReader | JsonlReader
# Yields (number of the line, key, value).
Lines = Iterator[tuple[int, Any, Any]]

CLASSES: dict[str, Any] = {"tracker": ProgressTracker, "dict": PersistentOrderedDict}


format_option = click.option(
    "--format", "chosen", type=click.Choice(list(FORMATS)),
    help="JSON Lines, the same compressed by gzip or Zstandard, or a folder with the files of the original tastypy.  "
         "[default: by the name]",
)


def find_format(name: str, chosen: str | None, is_source: bool) -> str:
    """Return the format of a path: the chosen one, or the one that the name selects. Otherwise raises CommandError.

    A source that is a folder has the files of the original tastypy. The folder of a target may be there by chance.
    """
    if name == "-":
        if chosen not in (None, "jsonl"):
            raise CommandError("- is JSON Lines, so --format can only be jsonl", USAGE)
        return "jsonl"
    if chosen is not None:
        if chosen != FILES and name.endswith(os.sep):
            raise CommandError(f"{name!r} is the name of a folder, and {chosen} is a file; leave the {os.sep} at its "
                               f"end out", USAGE)
        return chosen
    for known in FORMATS:
        if known != FILES and name.endswith(f".{known}"):
            return known
    if name.endswith(os.sep) or (is_source and os.path.isdir(name)):
        return FILES
    raise CommandError(f"the name {name!r} does not select a format; give --format ({', '.join(FORMATS)}), use a name "
                       f"that ends with .jsonl, .jsonl.gz or .jsonl.zst, or end the name of a folder with {os.sep}",
                       USAGE)


@click.command()
@store_argument
@click.argument("target", type=PathType(allow_dash=True))
@format_option
@click.option("-f", "--force", is_flag=True,
              help="Replace TARGET if it is a file. A failed export leaves it unchanged.")
def export(store: str, target: str, chosen: str | None, force: bool) -> None:
    """Export a store to other formats, in the order of its keys.

    The name of TARGET selects the format. NAME.jsonl is JSON Lines ({"key": ..., "value": ...}), .jsonl.gz and
    .jsonl.zst are the same compressed, and - is the same on stdout. NAME/ is a folder, which must be new or empty. It
    gets the numbered JSON files of the original tastypy. For other names, give --format.

    TARGET appears when it is complete and on disk, or not at all. The folder that it is in must exist. With --force, it
    replaces a file of this name, whose permissions it keeps. Other processes may write the store during the export.

    \b
    tastypy-fast export crawl crawl.jsonl.zst
    tastypy-fast export crawl - | jq .value.size
    tastypy-fast export crawl crawl-2017/
    """
    kind = find_format(target, chosen, False)
    if kind == FILES and force:
        raise CommandError("--force replaces a file, but the files of the original tastypy need a new or empty folder",
                           USAGE)
    if kind != FILES and os.path.isfile(target) and not force:
        raise CommandError(f"the file {target} exists already; use --force to replace it", CANNOT_OPEN)
    with open_reader(store) as reader:
        source: Any = reader
        if target == "-":
            source.export_jsonl(TerminalWriter() if sys.stdout.isatty() else sys.stdout.buffer)
            sys.stdout.flush()
            return
        _require_folder(target)
        if kind == FILES:
            count = source.export_json(target)
        else:
            count = write_jsonl(target, source.iteritems(), source.path, FORMATS[kind], force)
    print_line(f"wrote {quantity(count, 'line')} to {printable(target)}")


def _require_folder(target: str) -> None:
    """Raise CommandError if the folder in which the target shall be does not exist."""
    folder = os.path.dirname(target.rstrip(os.sep)) or os.curdir
    try:
        os.stat(folder)
    except FileNotFoundError:
        raise CommandError(f"there is no folder {folder!r} to write {target!r} in; make it first (mkdir -p)",
                           OTHER_ERROR) from None
    except OSError:
        pass  # reported when the target is made


@click.command(name="import")
@click.argument("source", type=PathType(allow_dash=True))
@store_argument
@format_option
@click.option("--tracker", "as_tracker", is_flag=True, help="If a new store is made, make it a tracker.")
@click.option("--dict", "as_dict", is_flag=True, help="If a new store is made, make it a dict.")
@json_option
def import_(source: str, store: str, chosen: str | None, as_tracker: bool, as_dict: bool, as_object: bool) -> None:
    """Import the output of export into a store, in order.

    The name of SOURCE selects the format, as TARGET does for export, unless --format is given. JSON Lines can be
    imported into a new store or an existing one, where keys get their new values. The files of the original tastypy
    always make a new store. A new store appears complete or not at all.

    Without --tracker or --dict, a new store is a tracker if the first value is a task, which has _done, _aborted and
    _tries. Then all values must be tasks. Otherwise it is a dict. For an empty input, give one of the two options. An
    export has no limit of tries, so set it with set-max-tries. To copy a store with its limit, use copy.

    \b
    tastypy-fast import crawl.jsonl.gz crawl
    tastypy-fast import crawl-2017 crawl --tracker
    """
    given: Input
    if as_tracker and as_dict:
        raise CommandError("a store is either a tracker or a dict, so --tracker and --dict cannot be combined", USAGE)
    kind = "tracker" if as_tracker else "dict" if as_dict else None
    if source != "-":
        os.stat(source)  # a file that does not exist has no format
    selected = find_format(source, chosen, True)
    if selected == FILES:
        given = TastypyJsonReader(source, None)
    else:
        given = JsonlReader(open_stdin() if source == "-" else source, FORMATS[selected])
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
            count = target.import_jsonl(given)
    new = f", a new {kind}" if there is None else ""
    result = {"lines": count, "kind": kind, "new": there is None}
    print_line(as_json(result) if as_object else f"read {quantity(count, 'line')} into {printable(store)}{new}")


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
