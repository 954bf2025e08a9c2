"""Keys and values as text: on the command line, on a terminal, and for other programs."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO, TextIO

from tastypy_fast._formats.json_text import compact_json, key_from_json, parse_json

__all__ = [
    "as_json",
    "console",
    "duration",
    "key_as_json",
    "key_from",
    "key_text",
    "lines_of",
    "make_tolerant",
    "out",
    "pair_as_json",
    "printable",
    "quantity",
    "size_text",
]

_SURROGATE = re.compile("[\ud800-\udfff]")


def printable(text: str, stream: TextIO | None = None) -> str:
    """As any terminal can show it: keys may hold anything."""
    stream = stream or sys.stdout
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    encoding = stream.encoding or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def as_json(value: Any, indent: int | None = None) -> str:
    """The JSON of a value, as export writes it; with ``indent`` over several lines."""
    if indent is not None:
        # (a very long int or deep nesting comes in one line)
        with suppress(ValueError, RecursionError):
            text = json.dumps(value, ensure_ascii=False, indent=indent)
            return _SURROGATE.sub(lambda found: ascii(found[0])[1:-1], text)
    return compact_json(value).decode("utf-8", "surrogateescape")


def key_as_json(key: Any) -> str:
    """The JSON of a key."""
    return compact_json(key).decode("utf-8", "surrogateescape")


def pair_as_json(key: Any, value: Any) -> str:
    """A line as export writes it."""
    return f'{{"key":{key_as_json(key)},"value":{as_json(value)}}}'


def key_text(key: Any, json_keys: bool = False) -> str:
    """A key in a line: a ``str`` as it is on the way to another program, readable on a terminal; any other as JSON.

    One with a line break or one that the encoding does not have comes as JSON too, in quotes.
    """
    if not isinstance(key, str) or json_keys:
        return key_as_json(key)
    if sys.stdout.isatty():
        return printable(key)
    try:
        key.encode(sys.stdout.encoding or "utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return key_as_json(key)
    return key_as_json(key) if "\n" in key or "\r" in key else key


def key_from(text: str, json_keys: bool) -> Any:
    """The key that an argument or a line means. Raises ValueError where it means none."""
    if not json_keys:
        return text
    try:
        key = key_from_json(parse_json(text.encode("utf-8", "surrogateescape")))
    except ValueError as error:
        raise ValueError(f"{text[:80]!r} is not JSON ({error}); a string takes double quotes") from None
    try:
        _check_key(key)
    except RecursionError:
        raise ValueError("the key is nested too deeply") from None
    return key


def _check_key(key: Any) -> None:
    if isinstance(key, tuple):
        for part in key:
            _check_key(part)
    elif not isinstance(key, (str, int)) or isinstance(key, bool):
        raise ValueError(f"a key is a string, an integer or an array of these, not {as_json(key)}")


def lines_of(name: str) -> Iterator[tuple[int, str]]:
    """The lines of a file (``-``: of stdin) without their ends, with their numbers; empty ones are left out. Any bytes
    are a line, as on the command line."""
    source: BinaryIO = sys.stdin.buffer if name == "-" else open(name, "rb")  # noqa: SIM115  (closed below)
    try:
        for number, raw in enumerate(source, 1):
            line = raw.removesuffix(b"\n").removesuffix(b"\r")
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line:
                yield number, line.decode("utf-8", "surrogateescape")
    finally:
        if name != "-":
            source.close()


def out(text: str) -> None:
    """A line on stdout."""
    sys.stdout.write(text + "\n")


def quantity(number: int, name: str) -> str:
    """As in ``1 task`` and ``2,000 tasks``."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def size_text(size: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"


def duration(seconds: float) -> str:
    """As in ``3 min 20 s``."""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def console(stream: TextIO | None = None) -> Any:
    """What tables are printed with: as wide as the terminal, and as wide as they are where there is none. It keeps to
    NO_COLOR."""
    from rich.console import Console

    stream = stream or sys.stdout
    width = None if stream.isatty() else 1000
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def make_tolerant(stream: Any) -> None:
    """Let a stream take every string: the bytes of file names as they were."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace" if stream.isatty() else "surrogateescape")
