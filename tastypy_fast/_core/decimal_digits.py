"""Convert ints of any size to decimal digits and back, in less than quadratic time.

Python's own conversions are quadratic before 3.12, and refuse more digits than ``sys.set_int_max_str_digits()`` allows
(4,300 by default). These functions split a number in halves, down to pieces that Python always converts.
"""

from __future__ import annotations

import decimal
from decimal import Decimal

__all__ = ["digits_of", "has_digits", "int_of"]

# sys.set_int_max_str_digits() accepts no limit below 640.
_PIECE_DIGITS = 500
_PIECE_BITS = 1600
_EXACT = decimal.Context(prec=decimal.MAX_PREC, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
_DIGITS = bytes(ord("0") if chr(byte).isdecimal() and byte < 128 else ord(" ") for byte in range(256))


def has_digits(data: bytes, count: int) -> bool:
    """Return whether ``data`` has ``count`` digits in a row. Cost: linear, and many times faster than ``re``."""
    return b"0" * count in data.translate(_DIGITS)


def int_of(text: str, most: int | None = None) -> int:
    """Convert digits, with an optional ``-``, to an int. Raises ValueError for more than ``most`` digits.

    >>> int_of("-12")
    -12
    """
    if len(text) <= _PIECE_DIGITS:
        return int(text)
    digits = text.removeprefix("-")
    if most is not None and len(digits) > most:
        raise ValueError(f"a number has {len(digits):,} digits, and at most {most:,} are read")
    powers: dict[int, int] = {}

    def convert(start: int, end: int) -> int:
        if end - start <= _PIECE_DIGITS:
            return int(digits[start:end])
        low = (end - start) >> 1
        if low not in powers:
            powers[low] = 5**low
        return (convert(start, end - low) * powers[low] << low) + convert(end - low, end)

    number = convert(0, len(digits))
    return -number if text.startswith("-") else number


def digits_of(number: int) -> str:
    """Return the decimal digits of an int.

    >>> digits_of(-12)
    '-12'
    """
    powers: dict[int, Decimal] = {}

    def power(bits: int) -> Decimal:
        if bits not in powers:
            powers[bits] = Decimal(1 << bits) if bits <= _PIECE_BITS else _EXACT.multiply(
                power(bits >> 1), power(bits - (bits >> 1)))
        return powers[bits]

    def convert(number: int, bits: int) -> Decimal:
        if bits <= _PIECE_BITS:
            return Decimal(number)
        low = bits >> 1
        high = number >> low
        return _EXACT.fma(convert(high, bits - low), power(low), convert(number - (high << low), low))

    text = format(convert(abs(number), number.bit_length()), "f")
    return f"-{text}" if number < 0 else text
