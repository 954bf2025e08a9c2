"""Keys and values as JSON that other programs read, and back, with nothing changed in silence.

Tuples are arrays in a key. Beyond strict JSON, ``NaN``, ``Infinity`` and ints of any size are written as Python's
``json`` module writes them. A lone surrogate is written as its escape. Only where a high one stands before a low one,
which as escapes would be read as one character, both are three bytes each, as in the store.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from tastypy_fast._core.decimal_digits import digits_of, has_digits, int_of
from tastypy_fast._core.json_fallback import FAST_JSON
from tastypy_fast._core.record_codec import encode_value
from tastypy_fast.exceptions import UnstorableValueError

__all__ = ["compact_json", "key_from_json", "parse_json", "spaced_json"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
# So many digits may be an int past 64 bits, of which orjson would make a float.
_LONG = 19
# A number of more digits is not read: its time grows faster than its length.
MOST_DIGITS = 100_000


def spaced_json(value: Any) -> bytes:
    """As ``json.dumps`` writes by default: ASCII, with a space after ``,`` and ``:``."""
    try:
        text = json.dumps(value)
    except ValueError:
        return _in_parts(value, spaced_json, b", ", b": ")
    if "\\ud" in text:
        raw = json.dumps(value, ensure_ascii=False)
        if _PAIR.search(raw):
            text = raw
    return text.encode("utf-8", "surrogatepass")


def compact_json(value: Any) -> bytes:
    """In as few bytes as possible: UTF-8, without spaces."""
    if not isinstance(value, tuple):  # a key, which may be nested deeper than a value
        try:
            codec, payload = encode_value(value)
            return payload if codec == FAST_JSON else _readable(payload.decode("utf-8", "surrogatepass"))
        except UnstorableValueError:  # too many digits, or nested too deeply from here
            pass
    try:
        return _readable(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    except ValueError:
        return _in_parts(value, compact_json, b",", b":")


def _in_parts(value: Any, write: Callable[[Any], bytes], comma: bytes, colon: bytes) -> bytes:
    """JSON with an int of more digits in it than Python writes (sys.set_int_max_str_digits)."""
    if isinstance(value, int):
        return digits_of(value).encode()
    if isinstance(value, dict):
        return b"{" + comma.join([write(name) + colon + write(item) for name, item in value.items()]) + b"}"
    if isinstance(value, (list, tuple)):
        return b"[" + comma.join([write(part) for part in value]) + b"]"
    raise  # (the error that is being handled)


def _readable(text: str) -> bytes:
    if _PAIR.search(text):
        return text.encode("utf-8", "surrogatepass")
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def key_from_json(parsed: Any) -> Any:
    """The key whose JSON was parsed: arrays are tuples. Raises ValueError."""
    try:
        return _with_tuples(parsed)
    except RecursionError:
        raise ValueError("the key is nested too deeply") from None


def _with_tuples(parsed: Any) -> Any:
    return tuple(map(_with_tuples, parsed)) if isinstance(parsed, list) else parsed


def parse_json(data: bytes) -> Any:
    """What JSON says, exactly. Raises ValueError, also for a number of more than 100,000 digits."""
    if not has_digits(data, _LONG):
        try:
            return orjson.loads(data)
        except ValueError:  # NaN, a lone surrogate, deep nesting, or no JSON
            pass
    try:
        return _decoder.decode(data.decode("utf-8", "surrogatepass"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


_decoder = json.JSONDecoder(parse_int=partial(int_of, most=MOST_DIGITS))
