"""Convert keys and values from and to text, and print."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO, TextIO

from tastypy_fast._formats.json_text import compact_json, key_from_json, parse_json

__all__ = [
    "StdinError",
    "TerminalWriter",
    "as_json",
    "can_redraw",
    "console",
    "cut_text",
    "duration",
    "error_text",
    "key_as_json",
    "key_field",
    "key_text",
    "open_stdin",
    "pair_as_json",
    "parse_key",
    "print_line",
    "print_null_ended",
    "printable",
    "quantity",
    "read_lines",
    "set_up_output",
    "size_text",
    "terminal_text",
    "write_line",
]

_SURROGATE = re.compile("[\ud800-\udfff]")


def printable(text: str, stream: TextIO | None = None) -> str:
    """Escape characters that a terminal cannot show, because keys may contain any character."""
    stream = stream or sys.stdout
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    encoding = stream.encoding or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def terminal_text(text: str, encoding: str) -> str:
    """Escape what a terminal would interpret, or what its encoding lacks, as JSON does. Keeps line breaks and tabs.

    So JSON stays JSON, and no key or value moves the cursor, changes colours or reverses the direction of text.

    >>> terminal_text('{"a":"\\x9b31m\\u202e"}', "utf-8"), terminal_text("é", "ascii")
    ('{"a":"\\\\u009b31m\\\\u202e"}', '\\\\u00e9')
    """
    if text.isprintable() and _has_all(encoding, text):
        return text
    return "".join(char if char in "\n\t" or (char.isprintable() and _has_all(encoding, char)) else
                   json.dumps(char)[1:-1] for char in text)


def cut_text(text: str, width: int, encoding: str) -> str:
    """Return a text that covers at most ``width`` cells of a terminal. Where it is cut, it ends with a mark.

    >>> cut_text("a long text", 7, "utf-8"), cut_text("a long text", 7, "latin-1"), cut_text("short", 7, "utf-8")
    ('a long…', 'a long~', 'short')
    """
    if text.isascii() and len(text) <= width:
        return text
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    # The escape of a mark that the encoding lacks would be longer than the line.
    return set_cell_size(text, width - 1) + ("\u2026" if _has_all(encoding, "\u2026") else "~")


def _has_all(encoding: str, text: str) -> bool:
    """Return whether an encoding has all characters of a text."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def as_json(value: Any, indent: int | None = None) -> str:
    """Return the JSON of a value as export writes it. With ``indent``, it has several lines."""
    if indent is not None:
        # Very long ints and deep nesting fail here, and are printed in one line instead.
        with suppress(ValueError, RecursionError):
            text = json.dumps(value, ensure_ascii=False, indent=indent)
            return _SURROGATE.sub(lambda found: ascii(found[0])[1:-1], text)
    return compact_json(value).decode("utf-8", "surrogateescape")


def key_as_json(key: Any) -> str:
    """Return the JSON of a key."""
    return compact_json(key).decode("utf-8", "surrogateescape")


def pair_as_json(key: Any, value: Any) -> str:
    """Return a key and its value as one line, as export writes it."""
    return f'{{"key":{key_as_json(key)},"value":{as_json(value)}}}'


def error_text(task: dict[str, Any]) -> str:
    """Return the error of a task in one line, or an empty string. A task without ``_error`` may have an "error".

    >>> error_text({"_error": {"type": "ValueError", "message": "a\\nb", "traceback": "..."}}), error_text({})
    ('ValueError: a b', '')
    """
    kept = task.get("_error")
    if isinstance(kept, dict):
        found = ": ".join(str(kept[name]) for name in ("type", "message") if kept.get(name))
    else:
        own = kept if kept is not None else task.get("error")
        found = own if isinstance(own, str) else as_json(own) if own is not None else ""
    return " ".join(found.split())


def key_text(key: Any, json_keys: bool = False) -> str:
    """Return a key as one line: a string unchanged (escaped on a terminal), any other key as JSON.

    A string with a line break, or with a lone surrogate that stands for no byte, is also returned as JSON.
    """
    if not isinstance(key, str) or json_keys:
        return key_as_json(key)
    if sys.stdout.isatty():
        return printable(key)
    try:
        key.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return key_as_json(key)
    return key_as_json(key) if "\n" in key or "\r" in key else key


def key_field(key: Any, json_keys: bool = False) -> str:
    """Return a key for a line with tabs between its fields: as ``key_text()``, but as JSON if it has a tab itself."""
    text = key_text(key, json_keys)
    return key_as_json(key) if "\t" in text else text


def parse_key(text: str, json_keys: bool) -> Any:
    """Parse the key in an argument or a line. Raises ValueError if it is no key."""
    if not json_keys:
        return text
    try:
        key = key_from_json(parse_json(text.encode("utf-8", "surrogateescape")))
    except ValueError as error:
        raise ValueError(f"{text[:80]!r} is not valid JSON ({error}); put a string in double quotes") from None
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
        raise ValueError(f"a key must be a string, an integer or an array of these, not {as_json(key)}")


class StdinError(OSError):
    """Raised if stdin cannot be read, for example because it is closed."""


class _Stdin(io.RawIOBase):
    """The bytes of stdin. An error says that it is one of stdin, because its own text does not."""

    name = "<stdin>"

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return int(sys.stdin.buffer.readinto1(buffer))  # type: ignore[union-attr]
        except OSError as error:
            raise StdinError(error.errno, f"stdin cannot be read: {error.strerror}") from None


def open_stdin() -> BinaryIO:
    """Return a binary file that reads stdin, and raises StdinError if that fails."""
    return io.BufferedReader(_Stdin(), 1 << 16)


def read_lines(name: str, null: bool = False) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line of a file, or of stdin if ``name`` is ``-``. Skips empty lines.

    With ``null``, the input has no lines, and a null character ends each text, also an empty one. Bytes that are not
    UTF-8 become surrogates, as in arguments on the command line.
    """
    source: BinaryIO = open_stdin() if name == "-" else open(name, "rb")  # noqa: SIM115  (closed below)
    try:
        for number, raw in enumerate(_split_at_nulls(source) if null else _split_at_newlines(source), 1):
            if raw or null:
                yield number, raw.decode("utf-8", "surrogateescape")
    finally:
        if name != "-":
            source.close()


def _split_at_newlines(source: BinaryIO) -> Iterator[bytes]:
    for number, raw in enumerate(source):
        line = raw.removesuffix(b"\n").removesuffix(b"\r")
        yield line if number else line.removeprefix(b"\xef\xbb\xbf")


def _split_at_nulls(source: BinaryIO) -> Iterator[bytes]:
    """Yield the parts of a file that null characters end, and what is after the last one, unless that is empty.

    Memory use is that of the longest part.
    """
    begun: list[bytes] = []
    while block := source.read1(1 << 16):  # type: ignore[attr-defined]
        first, *others = block.split(b"\0")
        begun.append(first)
        if others:
            yield b"".join(begun)
            begun = [others.pop()]
            yield from others
    if last := b"".join(begun):
        yield last


def print_line(text: str) -> None:
    """Print one line on stdout. On a terminal, what it would interpret is escaped."""
    is_plain = text.isascii() and text.isprintable()
    write_line(text if is_plain or not sys.stdout.isatty() else terminal_text(text, sys.stdout.encoding))


def write_line(text: str) -> None:
    """Print one line on stdout that has escape sequences of its own. Keys and values in it must be escaped already."""
    sys.stdout.write(text + "\n")


def print_null_ended(key: Any, json_keys: bool) -> None:
    """Print a key and a null character: a string unchanged if the commands can read it like that, otherwise as JSON."""
    text = key if isinstance(key, str) and not json_keys and "\0" not in key else key_as_json(key)
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        text = key_as_json(key)
    sys.stdout.write((terminal_text(text, sys.stdout.encoding) if sys.stdout.isatty() else text) + "\0")


class TerminalWriter:
    """A text file that writes lines to a terminal as ``print_line()`` does."""

    encoding = "utf-8"

    def write(self, text: str) -> None:
        """Write lines."""
        sys.stdout.write(terminal_text(text, sys.stdout.encoding))


def quantity(number: int, name: str) -> str:
    """Return a number with a noun, as in ``1 task`` and ``2,000 tasks``."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def size_text(size: float) -> str:
    """Format a number of bytes with a unit, as in ``1.5 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"


def duration(seconds: float) -> str:
    """Format seconds with units, as in ``3 min 20 s``."""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def console(stream: TextIO | None = None) -> Any:
    """Return the console of rich that tables are printed with. It is as wide as the terminal, and honours NO_COLOR.

    Without a terminal its width is 1,000, so that lines are not wrapped.
    """
    from rich.console import Console

    stream = stream or sys.stdout
    width = None if stream.isatty() else 1000
    if stream.isatty() and not can_redraw(stream):
        width = shutil.get_terminal_size().columns  # rich takes 80
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def set_up_output(stream: Any) -> None:
    """Let a stream accept every string.

    A terminal gets its own encoding, and escapes for other characters. A pipe or a file gets UTF-8 whatever the locale
    says, and surrogates of file names as their bytes, because the commands that read keys expect these bytes.
    """
    if isinstance(stream, io.TextIOWrapper):
        if stream.isatty():
            stream.reconfigure(errors="backslashreplace")
        else:
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def can_redraw(stream: TextIO) -> bool:
    """Return whether a stream is a terminal on which text can be drawn again in place. TERM=dumb is none."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
