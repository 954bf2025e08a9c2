"""Keys and values as JSON that other programs read, and back, with nothing changed in silence.

Tuples are arrays in a key. Beyond strict JSON, ``NaN``, ``Infinity`` and ints of any size are written as Python's
``json`` module writes them. A lone surrogate is written as its escape. Only where a high one stands before a low one,
which as escapes would be read as one character, both are three bytes each, as in the store.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import orjson

from tastypy_fast._json import FAST_JSON
from tastypy_fast._records import encode_value

__all__ = ["compact_json", "key_json", "key_of", "parse_json", "spaced_json"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
# So many digits may be an int past 64 bits, of which orjson would make a float. (Found many times as fast as by re.)
_DIGITS = bytes(ord("0") if chr(byte).isdecimal() and byte < 128 else ord(" ") for byte in range(256))
_LONG = b"0" * 19


def spaced_json(value: Any) -> bytes:
    """As ``json.dumps`` writes by default: ASCII, with a space after ``,`` and ``:``."""
    text = json.dumps(value)
    if "\\ud" in text:
        raw = json.dumps(value, ensure_ascii=False)
        if _PAIR.search(raw):
            text = raw
    return text.encode("utf-8", "surrogatepass")


def compact_json(value: Any) -> bytes:
    """In as few bytes as possible: UTF-8, without spaces."""
    if isinstance(value, tuple):  # a key, which may be nested deeper than a value
        return _readable(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    codec, payload = encode_value(value)
    return payload if codec == FAST_JSON else _readable(payload.decode("utf-8", "surrogatepass"))


def _readable(text: str) -> bytes:
    if _PAIR.search(text):
        return text.encode("utf-8", "surrogatepass")
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def key_json(key: Any, write: Callable[[Any], bytes]) -> bytes:
    """The JSON of a key, as ``write`` writes it; of an int of any size, too."""
    try:
        return write(key)
    except ValueError:  # an int of more digits than Python writes (sys.set_int_max_str_digits)
        if isinstance(key, tuple):
            return b"[" + b", ".join(key_json(part, write) for part in key) + b"]"
        return format(Decimal(key), "f").encode()


def key_of(parsed: Any) -> Any:
    """The key whose JSON was parsed: arrays are tuples."""
    return tuple(map(key_of, parsed)) if isinstance(parsed, list) else parsed


def parse_json(data: bytes) -> Any:
    """What JSON says, exactly. Raises ValueError."""
    if _LONG not in data.translate(_DIGITS):
        try:
            return orjson.loads(data)
        except ValueError:  # NaN, a lone surrogate, deep nesting, or no JSON
            pass
    try:
        return _decoder.decode(data.decode("utf-8", "surrogatepass"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _whole(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # more digits than Python reads
        return int(Decimal(digits))


_decoder = json.JSONDecoder(parse_int=_whole)
