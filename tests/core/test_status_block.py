"""The layout of a status block, and blocks of a wrong size."""

from __future__ import annotations

import pytest

from tastypy_fast import PersistentOrderedDictIntegrityError
from tastypy_fast._core.status_block import (
    ABORTED,
    CLAIMED,
    DONE,
    ERROR,
    FLAGS,
    HEAD,
    MAX_TRIES,
    PRESENT,
    STATUSES,
    TRIES_SHIFT,
    block_facts,
    count_failed,
    failed_in,
    has_failed,
    make_status,
    tries_in,
)

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


TRIES = [0, 1, 2, 15, 16, 17, 300, MAX_TRIES, -1, -2, -16, -MAX_TRIES]


@pytest.mark.parametrize("tries", TRIES)
def test_entry_holds_flags_and_tries_apart_from_each_other(tries):
    entry = make_status(True, False, tries)
    assert (entry & FLAGS, tries_in(entry), tries_in(entry | ERROR)) == (PRESENT | DONE, tries, tries)
    assert make_status(False, True, tries) & FLAGS == PRESENT | ABORTED
    assert (ERROR, FLAGS) == (1 << 31, 1 << 31 | PRESENT | DONE | ABORTED | CLAIMED)


def test_negative_tries_of_older_formats_read_the_same():
    for tries in (-1, -2, -16, -MAX_TRIES):
        assert tries_in(PRESENT | tries << TRIES_SHIFT & 0xFFFFFFFF) == tries


@pytest.mark.parametrize("min_tries", [0, 1, 2, 16, 300, MAX_TRIES])
@pytest.mark.parametrize("bits", [PRESENT | DONE, PRESENT | DONE | ABORTED])
def test_failed_tasks_of_a_block(min_tries, bits):
    entries = [make_status(done, aborted, tries) | more for done in (0, 1) for aborted in (0, 1)
               for tries in TRIES for more in (0, ERROR, CLAIMED)] + [0]
    expected = {slot: tries_in(entry) for slot, entry in enumerate(entries)
                if entry & bits == PRESENT and 0 < min_tries <= tries_in(entry)}
    block = STATUSES.pack(*[0] * 8, *entries, *[0] * (BLOCK - len(entries)))
    assert failed_in(block, min_tries, bits) == expected
    assert count_failed(block, min_tries, bits) == len(expected)
    assert [slot for slot, entry in enumerate(entries) if has_failed(entry, min_tries, bits)] == list(expected)


@pytest.mark.parametrize("function", [count_failed, failed_in])
def test_functions_over_a_block_check_its_size(function):
    with pytest.raises(PersistentOrderedDictIntegrityError, match="size"):
        function(bytes(BLOCK_BYTES - 1), 1, PRESENT)
