"""``export`` and ``import``: JSON Lines, and the original's files."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, BinaryIO

import click

from tastypy_fast import (
    DamagedInputError,
    PersistentOrderedDict,
    ProgressTracker,
    StoreInUseError,
    StoreNotFoundError,
)
from tastypy_fast._compressed import reading
from tastypy_fast._json_text import parse_json
from tastypy_fast.cli.choosing import PathType, json_option, store_argument
from tastypy_fast.cli.outcome import REFUSED, USAGE, Failure
from tastypy_fast.cli.stores import SPECIAL, Found, look_for, open_reader, open_writer
from tastypy_fast.cli.texts import as_json, out, quantity

__all__ = ["export", "import_"]

JSON_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
FORMATS = ("NAME.jsonl, NAME.jsonl.gz and NAME.jsonl.zst are JSON Lines, - is JSON Lines on stdin and stdout, a folder "
           "has the files of the original tastypy")


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
    where keys get their new values. The files of the original tastypy make a new store, whole or not at all; every one
    of them is checked first. A new store is a tracker when the first value is a task, if nothing else is said.

    \b
    tastypy-fast import crawl.jsonl.gz crawl
    tastypy-fast import crawl-2017 crawl --tracker
    """
    lines = source == "-" or is_json_lines(source)
    stream: Any = source
    there = _found_at(store)
    if there is not None:
        asked, kind = kind, "tracker" if there.is_tracker else "dict"
        if asked not in (None, kind):
            raise Failure(f"the store at {store} is there, and is a {kind}", USAGE)
    if kind is None:
        first, stream = _first_line(source)
        kind = "tracker" if _is_task(first, lines) else "dict"
    elif source == "-":
        stream = sys.stdin.buffer
    cls: Any = ProgressTracker if kind == "tracker" else PersistentOrderedDict
    if lines:
        with _open(store, cls, there) as target:
            count = target.import_jsonl(stream)
    else:
        with cls.import_json(source, store) as target:
            count = len(target)
    new = "" if there else f", a new {kind}"
    report = {"lines": count, "kind": kind, "new": there is None}
    out(as_json(report) if as_object else f"read {quantity(count, 'line')} into {store}{new}")


def _found_at(store: str) -> Found | None:
    try:
        return look_for(store)
    except StoreNotFoundError:
        return None


def _open(store: str, cls: Any, there: Found | None) -> Any:
    """A store to fill: private, which is quicker, where nobody shares it."""
    if there is None:
        return cls(store)
    try:
        return cls(store, file_size=there.file_size)
    except StoreInUseError:
        return open_writer(store)


# What a new store is, by its first line


def _first_line(source: str) -> tuple[bytes, Any]:
    """The first line of a source, and the source to be read from its beginning."""
    if source == "-":
        line = sys.stdin.buffer.readline()
        return line, io.BufferedReader(_Again(line, sys.stdin.buffer))
    name = source
    if os.path.isdir(source):
        names = [os.path.join(source, name) for name in ("0.json", "0.json.gz")]
        name = next(filter(os.path.exists, names), "")
        if not name:
            raise Failure(f"the folder {source!r} has no 0.json, with which the original's files begin", REFUSED)
    try:
        with reading(name) as lines:
            return next(lines, b""), source
    except DamagedInputError:  # the import says where
        return b"", source


def _is_task(line: bytes, lines: bool) -> bool:
    try:
        value = parse_json(line)["value"] if lines else parse_json(line.split(b"\t", 1)[1])
    except (ValueError, KeyError, IndexError, TypeError):  # the import says what is wrong with it
        return False
    return isinstance(value, dict) and value.keys() >= SPECIAL


class _Again(io.RawIOBase):
    """A stream with the part in front of it that was read already."""

    def __init__(self, before: bytes, rest: BinaryIO) -> None:
        self._before = before
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._before or self._rest.read1(len(buffer))  # type: ignore[attr-defined]
        part = data[: len(buffer)]
        if self._before:
            self._before = data[len(part):]
        buffer[: len(part)] = part
        return len(part)
