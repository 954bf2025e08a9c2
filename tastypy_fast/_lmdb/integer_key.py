"""Integer keys of LMDB: 8 bytes in the machine's byte order, which LMDB compares as numbers.

Row ids, block numbers and the counters in the database ``meta`` are stored like this.
"""

from __future__ import annotations

from struct import Struct

__all__ = ["INTEGER", "pack_integer", "unpack_integer"]

INTEGER = Struct("=q")


def pack_integer(number: int) -> bytes:
    """Return the 8 bytes of a number."""
    return INTEGER.pack(number)


def unpack_integer(raw: bytes) -> int:
    """Return the number in 8 bytes. Raises ``struct.error`` for any other size."""
    number: int = INTEGER.unpack(raw)[0]
    return number
