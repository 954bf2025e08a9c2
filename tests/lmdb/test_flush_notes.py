"""The file of flush points: two places, of which one is whole at any moment."""

from __future__ import annotations

import os

import lmdb
import pytest

from tastypy_fast._lmdb.flush_notes import FILE_SIZE, METAS_SIZE, FlushNotes, flush_to_disk, rewrite_metas

BOOT, IDENTITY, METAS = b"b" * 16, b"i" * 16, b"m" * METAS_SIZE


@pytest.fixture
def file(tmp_path):
    return tmp_path / "flushed"


@pytest.fixture
def notes(file):
    file.write_bytes(bytes(FILE_SIZE))
    notes = opened(file)
    yield notes
    notes.close()


def opened(file):
    return FlushNotes(os.open(file, os.O_RDWR | os.O_DSYNC))


def save(notes, txnid, force=False, metas=METAS):
    return notes.save(txnid, 4096, metas, BOOT, IDENTITY, None, force)


def test_what_was_saved_is_read(notes, file):
    assert notes.read() is None
    assert save(notes, 7)
    assert notes.read() == (1, 7, BOOT, IDENTITY, False, 4096, METAS)
    other = opened(file)
    assert other.read() == notes.read()
    other.close()


def test_it_goes_forward_only(notes):
    save(notes, 7)
    for txnid in (5, 7):
        assert save(notes, txnid)
        assert notes.read().txnid == 7
    save(notes, 8)
    save(notes, 3, force=True)
    assert notes.read()[:2] == (3, 3)


def test_two_places_are_written_in_turn(notes, file):
    for txnid in range(1, 6):
        before = file.read_bytes()
        save(notes, txnid)
        after = file.read_bytes()
        changed = [before[at : at + 4096] != after[at : at + 4096] for at in (0, 4096)]
        assert sorted(changed) == [False, True]
        assert notes.read().sequence == txnid


@pytest.mark.parametrize("kept", [0, 1, 16, 24, 335, 336, 343])
def test_a_torn_note_leaves_the_one_before(notes, file, kept):
    save(notes, 1)
    before = file.read_bytes()
    save(notes, 2, metas=b"n" * METAS_SIZE)
    after = file.read_bytes()
    at = next(at for at in (0, 4096) if before[at : at + 4096] != after[at : at + 4096])
    file.write_bytes(after[: at + kept] + before[at + kept : at + 4096] + after[at + 4096 :])
    assert notes.read()[1:] == (1, BOOT, IDENTITY, False, 4096, METAS)
    # The next one is not written over the only whole one.
    save(notes, 3)
    assert notes.read().txnid == 3
    assert before[4096 - at : 8192 - at] == file.read_bytes()[4096 - at : 8192 - at]


@pytest.mark.parametrize("content", [b"", b"x", bytes(100), b"tpfFLUSH" * 1024])
def test_a_file_without_a_note_has_none(file, content):
    file.write_bytes(content)
    notes = opened(file)
    assert notes.read() is None
    save(notes, 1)
    assert notes.read().txnid == 1
    notes.close()


def test_a_failed_flush_ends_the_saving_until_it_is_forced(notes):
    save(notes, 1)
    save(notes, 2)
    notes.mark_failed()
    assert notes.read()[1:5] == (2, BOOT, IDENTITY, True)
    notes.mark_failed()
    assert not save(notes, 3)
    assert notes.read()[:2] == (3, 2)
    assert save(notes, 2, force=True)
    assert not notes.read().failed


def test_a_failed_write_counts_as_a_failed_flush(file):
    file.write_bytes(bytes(FILE_SIZE))
    notes = opened(file)
    save(notes, 1)
    notes.close()
    unwritable = FlushNotes(os.open(file, os.O_RDONLY))
    with pytest.raises(OSError, match="Bad file descriptor"):
        save(unwritable, 2)
    assert unwritable.read().txnid == 1
    unwritable.close()


def test_closed_notes_save_nothing(notes):
    save(notes, 1)
    notes.close()
    notes.close()
    assert notes.fileno() == -1
    assert notes.read() is None
    with pytest.raises(ValueError, match="closed"):
        save(notes, 2)


def test_wrong_parts_are_refused(notes):
    with pytest.raises(ValueError, match="length"):
        notes.save(1, 4096, METAS[1:], BOOT, IDENTITY, None, False)


def test_a_flush_of_a_closed_file_is_an_error(file):
    file.write_bytes(b"")
    descriptor = os.open(file, os.O_RDWR)
    flush_to_disk(descriptor)
    os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        flush_to_disk(descriptor)


def test_meta_pages_that_are_written_again_are_the_same(tmp_path):
    with lmdb.open(str(tmp_path)) as db:
        for number in range(3):
            with db.begin(write=True) as txn:
                txn.put(b"key", bytes(number))
    before = (tmp_path / "data.mdb").read_bytes()
    descriptor = os.open(tmp_path / "data.mdb", os.O_RDWR)
    rewrite_metas(descriptor)
    assert (tmp_path / "data.mdb").read_bytes() == before
    os.close(descriptor)
    for flags in (os.O_RDONLY, os.O_WRONLY):
        descriptor = os.open(tmp_path / "data.mdb", flags)
        with pytest.raises(OSError, match="Input/output error"):
            rewrite_metas(descriptor)
        os.close(descriptor)
