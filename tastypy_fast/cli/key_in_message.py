"""Find the key of a task in the message of its error, in whatever way the message writes it.

A message has the key itself only if the key is plain text. Python writes it as repr(), and commands quote it for a
shell or in C. Errors that a pipeline keeps have no lone surrogates, because JSON cannot hold them. In the output of
commands, bytes that are not UTF-8 become U+FFFD.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from typing import Any

from tastypy_fast._formats.json_text import spaced_json
from tastypy_fast.cli.formatting import key_as_json

__all__ = ["replace_key"]

# A key of fewer characters may be in a message by chance.
MIN_KEY = 3
# ASCII without control characters, quotation marks and backslashes, which is written alike everywhere.
_PLAIN = re.compile(r"[ !#-&(-\[\]-~]*")
# The escapes of C for the characters 7 to 13.
_LETTERS = "abtnvfr"


def replace_key(message: str, key: Any) -> str:
    """Return a message in which ``{key}`` stands for the key.

    >>> replace_key("no such file: 'ab\\\\udcff'", "ab\\udcff"), replace_key("1234 of 123", 123)
    ("no such file: '{key}'", '1234 of {key}')
    """
    # The longest first, because some contain others.
    found = {text for text in _spellings(key) if len(text) >= MIN_KEY and text in message}
    if found:
        message = re.sub("|".join(map(_as_word, sorted(found, key=len, reverse=True))), "{key}", message)
    # repr() and GNU programs write some keys between double quotes, and most between single ones.
    return message.replace('"{key}"', "'{key}'")


def _as_word(text: str) -> str:
    """Return a pattern that finds a text, but not inside of a longer word or number."""
    before = r"(?<!\w)" if text[0].isalnum() else ""
    after = r"(?!\w)" if text[-1].isalnum() else ""
    return before + re.escape(text) + after


def _spellings(key: Any) -> Iterator[str]:
    """Yield the texts that a message may have for a key."""
    if not isinstance(key, str):
        yield key_as_json(key)
        yield spaced_json(key).decode("utf-8", "surrogateescape")
        with suppress(ValueError):  # an int of more digits than Python writes
            yield repr(key)
            yield ascii(key)
        return
    yield key
    if _PLAIN.fullmatch(key) or len(key) < MIN_KEY:
        return
    # The message of an error that is one line has no other white space.
    yield " ".join(key.split())
    yield key.encode("utf-8", "backslashreplace").decode()
    for quoted in (repr(key), ascii(key), key_as_json(key), json.dumps(key)):
        yield quoted[1:-1]
    with suppress(UnicodeEncodeError):  # a surrogate that stands for no byte, which no command can get
        yield key.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        for is_ascii in (False, True):
            yield _quoted_for_shell(key, is_ascii)
            yield _quoted_in_c(key, is_ascii)


def _quoted_for_shell(text: str, is_ascii: bool) -> str:
    """Return a text as GNU programs write it between single quotes, in a UTF-8 or an ASCII locale.

    >>> print(_quoted_for_shell("a\\udcffb", False))
    a'$'\\377''b
    """
    parts = [f"'$'{part}''" if is_escaped else part.replace("'", "'\\''")
             for is_escaped, part in _parts(text, is_ascii)]
    # If the last part is escaped, its quote is the one after the text.
    return "".join(parts).removesuffix("''")


def _quoted_in_c(text: str, is_ascii: bool) -> str:
    """Return a text as git, find and tar write it between double quotes, in a UTF-8 or an ASCII locale.

    >>> print(_quoted_in_c('a\\udcff"b', False))
    a\\377\\"b
    """
    return "".join(part if is_escaped else part.replace("\\", "\\\\").replace('"', '\\"')
                   for is_escaped, part in _parts(text, is_ascii))


def _parts(text: str, is_ascii: bool) -> Iterator[tuple[bool, str]]:
    """Split a text into parts. Yields (False, part) for printable ones, and (True, escaped bytes) for the others."""
    for is_shown, chars in groupby(text, lambda char: char.isprintable() and (char.isascii() or not is_ascii)):
        part = "".join(chars)
        yield (False, part) if is_shown else (True, "".join(map(_escaped, part.encode("utf-8", "surrogateescape"))))


def _escaped(byte: int) -> str:
    return f"\\{_LETTERS[byte - 7]}" if 7 <= byte <= 13 else f"\\{byte:03o}"
