"""Read the claims of a shared tracker, also those of older formats.

Up to format 4, claims were a database of their own, ``claims``, which mapped a packed sequence number to the claim. The
first process that opens such a store to write moves them to the main database (see ``_core.claim_record``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from tastypy_fast._core.claim_record import ClaimRecord, claim_key, read_claim, read_claims
from tastypy_fast._core.memtable import MergedTransaction

__all__ = ["OLD_DATABASES", "move_old_claims", "read_stored_claims"]

# The databases that shared stores had up to format 4. The other one had the before-images.
OLD_DATABASES = (b"claims", b"images")


def read_stored_claims(db: Any, txn: Any) -> Iterator[tuple[int, ClaimRecord]]:
    """Yield each claim as a pair of sequence number and ClaimRecord. ``db`` is LMDB's environment."""
    if isinstance(txn, MergedTransaction):
        # The process that wrote the log has released all claims when it opened the store.
        return iter(())
    if txn.get(b"claims") is not None:
        return ((seq, read_claim(raw)) for seq, raw in _old_claims(db, txn))
    return read_claims(txn, db.open_db(None, txn=txn))


def move_old_claims(db: Any, txn: Any, claims: Any) -> None:
    """Move the claims of an older format to the main database, and drop the databases that are no longer used."""
    if txn.get(b"claims") is not None:
        for seq, raw in _old_claims(db, txn):
            txn.put(claim_key(seq), raw, db=claims)
    for name in OLD_DATABASES:
        if txn.get(name) is not None:
            txn.drop(db.open_db(name, txn=txn, create=False, integerkey=True))


def _old_claims(db: Any, txn: Any) -> Iterator[tuple[int, bytes]]:
    # Open the database in the transaction, because outside one LMDB would wait for the writer lock.
    database = db.open_db(b"claims", txn=txn, create=False, integerkey=True)
    for number, raw in txn.cursor(database):
        yield int.from_bytes(number, sys.byteorder), raw
