"""Convert keys and values to JSON that other programs read, and back, without loss.

Tuples in a key are arrays. ``NaN``, ``Infinity`` and ints of any size are written as Python's ``json`` module writes
them, although strict JSON lacks them. A lone surrogate is written as its escape. A high surrogate before a low
surrogate is written in UTF-8, three bytes each, as in the store. A reader would join their escapes into one character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from tastypy_fast._core.decimal_digits import digits_of, has_digits, int_of
from tastypy_fast._core.fresh_stack import on_fresh_stack
from tastypy_fast._core.json_fallback import FAST_JSON
from tastypy_fast._core.record_codec import encode_value
from tastypy_fast.exceptions import UnstorableValueError

__all__ = ["compact_json", "key_from_json", "parse_json", "spaced_json"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
# A number of this many digits may exceed 64 bits, and orjson would turn it into a float.
_LONG = 19
# The limit on the digits of a number, because the time to parse it grows faster than its length.
MOST_DIGITS = 100_000


def spaced_json(value: Any) -> bytes:
    """Encode a value as ``json.dumps`` does by default: ASCII, with a space after ``,`` and ``:``."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return on_fresh_stack(spaced_json, value)
    except ValueError:
        return _encode_parts(value, spaced_json, b", ", b": ")
    if "\\ud" in text:
        raw = json.dumps(value, ensure_ascii=False)
        if _PAIR.search(raw):
            text = raw
    return text.encode("utf-8", "surrogatepass")


def compact_json(value: Any) -> bytes:
    """Encode a value as the shortest JSON: UTF-8, without spaces."""
    if not isinstance(value, tuple):  # a tuple is a key, which may be nested deeper than a value
        try:
            codec, payload = encode_value(value)
            return payload if codec == FAST_JSON else _escape_surrogates(payload.decode("utf-8", "surrogatepass"))
        except UnstorableValueError:  # too many digits
            pass
    try:
        return _escape_surrogates(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    except RecursionError:
        return on_fresh_stack(compact_json, value)
    except ValueError:
        return _encode_parts(value, compact_json, b",", b":")


def _encode_parts(value: Any, write: Callable[[Any], bytes], comma: bytes, colon: bytes) -> bytes:
    """Encode a value with an int that exceeds the limit of sys.set_int_max_str_digits().

    It does not recurse, because such an int may be nested as deeply as a value can be.
    """
    done: list[bytes] = []
    # What is left to write, last part first. Bytes are JSON already, because no value has bytes.
    left: list[Any] = [value]
    while left:
        part = left.pop()
        if isinstance(part, bytes):
            done.append(part)
        elif isinstance(part, dict):
            done.append(b"{")
            items = [piece for name, item in part.items() for piece in (comma, write(name), colon, item)]
            left += [b"}", *reversed(items[1:])]
        elif isinstance(part, (list, tuple)):
            done.append(b"[")
            items = [piece for item in part for piece in (comma, item)]
            left += [b"]", *reversed(items[1:])]
        elif isinstance(part, int) and not isinstance(part, bool):
            done.append(digits_of(part).encode())
        else:
            done.append(write(part))
    return b"".join(done)


def _escape_surrogates(text: str) -> bytes:
    if _PAIR.search(text):
        return text.encode("utf-8", "surrogatepass")
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def key_from_json(parsed: Any) -> Any:
    """Convert parsed JSON to a key, with tuples for arrays. Raises ValueError if it is nested too deeply."""
    try:
        return _with_tuples(parsed)
    except RecursionError:
        try:
            return on_fresh_stack(_with_tuples, parsed)
        except RecursionError:
            raise ValueError("the key is nested too deeply") from None


def _with_tuples(parsed: Any) -> Any:
    return tuple(map(_with_tuples, parsed)) if isinstance(parsed, list) else parsed


def parse_json(data: bytes) -> Any:
    """Parse JSON exactly. Raises ValueError for invalid JSON, and for a number of more than 100,000 digits."""
    if not has_digits(data, _LONG):
        try:
            return orjson.loads(data)
        except ValueError:  # NaN, a lone surrogate, deep nesting, or invalid JSON
            pass
    text = data.decode("utf-8", "surrogatepass")
    try:
        return _decoder.decode(text)
    except RecursionError:
        try:
            return on_fresh_stack(_decoder.decode, text)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None


_decoder = json.JSONDecoder(parse_int=partial(int_of, most=MOST_DIGITS))
