"""Find string keys by their beginning, in the index of a store."""

from __future__ import annotations

from typing import Any

from tastypy_fast._core.key_codec import decode_key, encode_key
from tastypy_fast._store.store import Store

__all__ = ["find_keys"]


def find_keys(store: Store, prefix: str, count: int) -> list[str]:
    """Return string keys that begin with a prefix, sorted: all of them, or the first ``count - 1`` and the last one.

    So what the returned keys have in common at their beginning is what all keys with the prefix have in common. Keys
    whose encoding has more than about 500 bytes are left out, because the index has only their digests.

    Cost: O(log n + count), whatever the number of keys with the prefix.
    """
    first = encode_key(prefix)  # A string has no mark of its end.
    # UTF-8 has no byte 0xff.
    behind = first + b"\xff"
    found: list[str] = []
    with store.lock, store.begin_reading() as txn:
        cursor: Any = txn.cursor(store.order)
        there = cursor.set_range(first)
        while there and len(found) < count and cursor.key().startswith(first):
            found.append(decode_key(cursor.key()))
            there = cursor.next()
        if len(found) == count and there and cursor.key().startswith(first):
            there = cursor.prev() if cursor.set_range(behind) else cursor.last()
            if there and cursor.key().startswith(first):
                found[-1] = decode_key(cursor.key())
    return found
