"""The layout of a status block, and blocks of a wrong size."""

from __future__ import annotations

import pytest

from tastypy_fast import PersistentOrderedDictIntegrityError
from tastypy_fast._core.status_block import ABORTED, CLAIMED, DONE, HEAD, PRESENT, STATUSES, TRIES_SHIFT, block_facts

BLOCK = 500
BLOCK_BYTES = 16 + 4 * BLOCK


def test_block_facts_returns_stored_and_actual_counts():
    assert block_facts(bytes(BLOCK_BYTES)) == ((0,) * 5, (0,) * 5, [], [])
    entries = bytearray(BLOCK_BYTES)
    entries[16] = 1 | 2  # a task that is done, at the first place
    entries[20] = 1 | 8  # one that is claimed, at the second
    assert block_facts(bytes(entries)) == ((0,) * 5, (2, 1, 0, 0, 1), [0, 1], [1])


def test_layout_constants_in_python_match_the_core():
    assert STATUSES.size == BLOCK_BYTES
    entries = [PRESENT | DONE, PRESENT | CLAIMED, PRESENT | ABORTED | 3 << TRIES_SHIFT, *[0] * (BLOCK - 3)]
    head = 3, 1, 1, 1, 1
    raw = STATUSES.pack(*head, 0, 0, 0, *entries)
    assert HEAD.unpack_from(raw)[:5] == head
    assert block_facts(raw) == (head, head, [0, 1, 2], [1])


@pytest.mark.parametrize("size", [0, 1, 16, BLOCK_BYTES - 1, BLOCK_BYTES + 1, 4096])
def test_block_of_the_wrong_size_is_damage(size):
    with pytest.raises(PersistentOrderedDictIntegrityError, match="size"):
        block_facts(bytes(size))
