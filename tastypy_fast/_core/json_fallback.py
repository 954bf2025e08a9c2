"""Encode the values that orjson would change or refuse, so that they are read back unchanged.

The fast path for plain types, finite floats and 64-bit ints is in the compiled ``record_codec``. Other values are
converted to plain types first if ``json.dumps`` would accept them: dict keys that are numbers, subclasses, numpy's
numbers and arrays. Any other value is refused, with the place inside the value. The result is written by orjson if
that is exact, and by the standard ``json`` module otherwise.
"""

from __future__ import annotations

import json
import math
import re
import sys
from itertools import accumulate
from typing import Any

import orjson

from tastypy_fast._core.decimal_digits import has_digits, int_of
from tastypy_fast._core.fresh_stack import on_fresh_stack
from tastypy_fast.exceptions import UnstorableValueError

__all__ = ["FAST_JSON", "STANDARD_JSON", "decode_standard", "encode_standard", "encode_unusual"]

# The codecs of record_codec.pxd.
FAST_JSON = 1
STANDARD_JSON = 2

# sys.set_int_max_str_digits() may limit Python to 640 digits.
_LONG = 640
# The depth to which values nest. With the default limit of Python's recursion they can be read in any thread. A program
# may have another limit, but its readers have not.
MAX_DEPTH = 490
_TOO_DEEP = f"the value is nested too deeply, or contains itself; values nest up to {MAX_DEPTH} levels"
# A bracket, or a string, which may have brackets that are none.
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')
_patient = json.JSONDecoder(parse_int=int_of)
_INT64 = range(-(2**63), 2**63)


def encode_unusual(value: object) -> tuple[int, bytes]:
    """Return ``(codec, JSON)`` of any value that JSON can hold. Raises UnstorableValueError for other values."""
    try:
        return _encode(value)
    except RecursionError:
        try:
            return on_fresh_stack(_encode, value)
        except RecursionError as error:
            raise UnstorableValueError(f"{_TOO_DEEP} ({error})") from None


def _encode(value: object) -> tuple[int, bytes]:
    plain, exact = _plain(value, "$")
    if exact:
        try:
            return FAST_JSON, orjson.dumps(plain)
        except orjson.JSONEncodeError:  # a lone surrogate, or nested too deep for orjson
            pass
    return STANDARD_JSON, encode_standard(plain)


def encode_standard(plain: object) -> bytes:
    """Encode a value of exact JSON types with the standard module."""
    # With ensure_ascii, two lone surrogates in a row would be written as escapes that are read back as one character.
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def decode_standard(payload: bytes) -> Any:
    """Decode what ``encode_unusual()`` wrote with the standard module.

    Reads ints of any size, because another process may have stored one with a higher limit on digits. Raises
    RuntimeError if this process has a limit of recursion that is too low, because the value is not damaged then.
    """
    text = payload.decode("utf-8", "surrogatepass")
    decode = _patient.decode if has_digits(payload, _LONG) else json.loads
    try:
        return decode(text)
    except RecursionError:
        try:
            return on_fresh_stack(decode, text)
        except RecursionError as error:
            if _depth_of(text) > MAX_DEPTH:
                raise
            raise RuntimeError(str(error)) from None


def _depth_of(text: str) -> int:
    """Return how deeply the parts of a JSON text are nested."""
    steps = (1 if found[0] in "[{" else -1 if found[0] in "]}" else 0 for found in _BRACKET.finditer(text))
    return max(accumulate(steps), default=0)


def _plain(value: object, where: str, depth: int = 0) -> tuple[Any, bool]:
    """Return the value in exact JSON types, and whether orjson writes it exactly."""
    if value is None or value is True or value is False:
        return value, True
    if isinstance(value, str):
        return str.__str__(value), True
    if isinstance(value, int):
        number = int.__int__(value)
        if number in _INT64:
            return number, True
        _text_of(number, f"the int at {where}")
        return number, False
    if isinstance(value, float):
        real = float.__float__(value)
        return real, math.isfinite(real)
    if depth >= MAX_DEPTH and isinstance(value, (dict, list, tuple)):
        raise UnstorableValueError(_TOO_DEEP)
    if isinstance(value, dict):
        return _plain_dict(value, where, depth)
    # list() copies in one step, because another thread may change the value meanwhile.
    if isinstance(value, (list, tuple)):
        parts = [_plain(part, f"{where}[{index}]", depth + 1) for index, part in enumerate(list(value))]
        return [part for part, _ in parts], all(exact for _, exact in parts)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            _refuse_kind(value.dtype, where)
            return _plain(value.tolist(), where, depth)
        # A timedelta64 is an integer to numpy, and .item() would drop its unit.
        if isinstance(value, (numpy.bool_, numpy.integer, numpy.floating)) and value.dtype.kind != "m":
            number = value.item()
            # No Python number holds a longdouble, so .item() returns it as it is.
            if not isinstance(number, numpy.generic):
                return _plain(number, where)
    raise UnstorableValueError(
        f"JSON cannot hold a {type(value).__module__}.{type(value).__qualname__}, and there is one at {where}; "
        f"store a str, a number, a list or a dict instead"
    )


def _text_of(number: int, what: str) -> str:
    """Return the digits of an int. Raises UnstorableValueError above the limit of sys.set_int_max_str_digits()."""
    try:
        return str(number)
    except ValueError as error:
        raise UnstorableValueError(f"{what} has too many digits for JSON: {error}") from None


def _refuse_kind(dtype: Any, where: str) -> None:
    """Raise UnstorableValueError for an array whose ``tolist()`` drops the units or names of its elements."""
    if dtype.kind in "mM":
        what, instead = f"an array of dtype {dtype}", "store the text of each date, or its number and its unit"
    elif dtype.kind == "V":
        what, instead = f"an array of records (dtype {dtype!s:.80})", "store a list of dicts, or a list for each field"
    else:
        return
    raise UnstorableValueError(f"JSON cannot hold {what}, and there is one at {where}; {instead}")


def _plain_dict(value: dict[Any, Any], where: str, depth: int) -> tuple[dict[str, Any], bool]:
    plain: dict[str, Any] = {}
    all_exact = True
    for key, item in list(value.items()):
        name = _plain_name(key, where)
        if name in plain:
            raise UnstorableValueError(
                f"two keys of the dict at {where} are both {name[:80]!r} in JSON, where every key is a str; "
                f"one of the values would be lost"
            )
        plain[name], exact = _plain(item, f"{where}.{name:.80}", depth + 1)
        all_exact = all_exact and exact
    return plain, all_exact


def _plain_name(key: object, where: str) -> str:
    """Return the key of a dict as ``json.dumps`` writes it."""
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return _text_of(int.__int__(key), f"a key of the dict at {where}")
    if key is None or isinstance(key, (bool, float)):
        return json.dumps(key)
    raise UnstorableValueError(
        f"JSON cannot hold a dict key of type {type(key).__module__}.{type(key).__qualname__}, "
        f"and the dict at {where} has one"
    )
