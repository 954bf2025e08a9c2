"""``export`` and ``import``: JSON Lines, and the original's files."""

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
from tastypy_fast.cli.exit_codes import USAGE, Failure
from tastypy_fast.cli.formatting import as_json, out, quantity
from tastypy_fast.cli.key_filters import PathType, json_option, store_argument
from tastypy_fast.cli.open_store import SPECIAL, StoreIdentity, identify_store, open_reader, open_writer

__all__ = ["export", "import_"]

JSON_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
FORMATS = ("NAME.jsonl, NAME.jsonl.gz and NAME.jsonl.zst are JSON Lines, - is JSON Lines on stdin and stdout, a folder "
           "has the files of the original tastypy")
Input = TastypyJsonReader | JsonlReader
# (number of the line, key, value) of each.
Lines = Iterator[tuple[int, Any, Any]]

CLASSES: dict[str, Any] = {"tracker": ProgressTracker, "dict": PersistentOrderedDict}


def is_json_lines(name: str) -> bool:
    """Whether a path is one of JSON Lines, by its name; a folder otherwise. Failure for any other kind of file."""
    if name.endswith(JSON_LINES):
        return True
    suffix = os.path.splitext(name)[1]
    if suffix and not os.path.isdir(name) and not name.endswith(os.sep):
        raise Failure(f"what format is {name!r}? {FORMATS} (end the name of a folder with {os.sep} to say so)", USAGE)
    return False


@click.command()
@store_argument
@click.argument("target", type=PathType(allow_dash=True))
def export(store: str, target: str) -> None:
    """Write a store out, in order, beside whoever writes it.

    TARGET tells the format by its name: NAME.jsonl is JSON Lines ({"key": ..., "value": ...}), .jsonl.gz and .jsonl.zst
    the same compressed, - the same on stdout. A folder, new or empty, gets the numbered JSON files of the original
    tastypy. What is there already is not replaced.

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
    out(f"wrote {quantity(count, 'line')} to {target}")


@click.command(name="import")
@click.argument("source", type=PathType(exists=True, allow_dash=True))
@store_argument
@click.option("--tracker", "kind", flag_value="tracker", help="A new store is a tracker.")
@click.option("--dict", "kind", flag_value="dict", help="A new store is a dict.")
@json_option
def import_(source: str, store: str, kind: str | None, as_object: bool) -> None:
    """Read what export writes into a store, in order.

    SOURCE tells the format by its name, as the TARGET of export. JSON Lines go into a new store or one that is there,
    where keys get their new values. The files of the original tastypy make a new store; every one of them is checked
    first. A new store appears whole or not at all.

    A new store is a tracker when all values are tasks (with _done, _aborted and _tries), and a dict when the first one
    is none, if nothing else is said. An empty input does not tell.

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
        raise Failure(f"the store at {store} is there, and is a {found}", USAGE)
    kind = kind or found
    if there is None or isinstance(given, TastypyJsonReader):
        count, kind = _import_new(given, store, kind)
    else:
        with _open(store, there) as target:
            count = target.import_jsonl(sys.stdin.buffer if source == "-" else source)
    new = f", a new {kind}" if there is None else ""
    report = {"lines": count, "kind": kind, "new": there is None}
    out(as_json(report) if as_object else f"read {quantity(count, 'line')} into {store}{new}")


def _found_at(store: str) -> StoreIdentity | None:
    try:
        return identify_store(store)
    except StoreNotFoundError:
        return None


def _open(store: str, there: StoreIdentity) -> Any:
    """A store to fill: private, which is quicker, where nobody shares it."""
    try:
        return CLASSES["tracker" if there.is_tracker else "dict"](store, file_size=there.file_size)
    except StoreInUseError:
        return open_writer(store)


def _import_new(given: Input, store: str, kind: str | None) -> tuple[int, str]:
    """Make a store of what was given, whole or not at all. How many lines there were, and which kind it is."""
    with closing(iter(given)) as entries:
        first = next(entries, None)
        lines: Lines = chain(() if first is None else (first,), entries)
        if kind is None:
            if first is None:
                raise Failure("there is nothing in it, which does not tell what the new store is: say --tracker or "
                              "--dict. None was made", USAGE)
            kind = "tracker" if _is_task(first[2]) else "dict"
            if kind == "tracker":
                lines = _tasks(given, lines)
        made, count = make_store(CLASSES[kind], store, given, lines)
        made.close()
    return count, kind


def _is_task(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() >= SPECIAL


def _tasks(given: Input, lines: Lines) -> Lines:
    """Refuse the first line that is no task: what a tracker would make of it was not asked for."""
    for line in lines:
        if not _is_task(line[2]):
            raise DamagedInputError(f"{given.where(line[0])}: this value is no task, and those before it are; say "
                                    f"--tracker or --dict")
        yield line
