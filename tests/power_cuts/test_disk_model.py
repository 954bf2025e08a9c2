"""The model of a disk that loses its power."""

from __future__ import annotations

import os
from random import Random

import pytest

from tests.power_cuts.disk_model import MODES, PAGE, Disk, File
from tests.power_cuts.recorder import Event

A, B, C = (letter * PAGE for letter in (b"a", b"b", b"c"))


def images(file, mode, times=300):
    return {bytes(file.after_power_cut(mode, Random(seed))) for seed in range(times)}


@pytest.fixture
def file():
    """Page 0 is on the disk. It was written again later, and pages 1 and 2 were added."""
    file = File()
    file.write(0, 0, A)
    file.flush(1)
    file.write(2, 0, B)
    file.write(3, PAGE, B)
    file.write(4, 2 * PAGE, B)
    return file


@pytest.mark.parametrize("mode", MODES)
def test_flushed_writes_are_there_and_later_ones_may_be(file, mode):
    found = images(file, mode)
    assert all(image[at : at + 1] in (b"a", b"b") for image in found for at in range(0, PAGE, 512))
    assert found <= images(file, mode, 3_000)
    file.flush(5)
    assert images(file, mode, 20) == {B + B + B}


def test_modes_leave_what_they_say(file):
    zeros = bytes(PAGE)
    assert images(file, "none") == {A}
    assert images(file, "all") == {B + B + B}
    assert images(file, "prefix") == {A, B, B + B, B + B + B}
    assert images(file, "metas") == {B + B}
    assert images(file, "all but one") == {A + B + B, B + zeros + B, B + B}
    assert images(file, "half") == {first + rest for first in (A, B) for rest in (b"", B, zeros + B, B + B)}
    file.write(5, 0, C)
    assert {image[:1] for image in images(file, "old")} == {b"a", b"b", b"c"}
    assert b"a" * 512 + b"c" * 512 in {image[:1024] for image in images(file, "torn")}


def test_same_seed_gives_the_same_disk(file):
    for mode in MODES:
        assert file.after_power_cut(mode, Random(7)) == file.after_power_cut(mode, Random(7))


def test_flush_covers_what_was_written_before_it_began(file):
    file.flush(4)
    assert images(file, "none") == {B + B}


def test_failed_flush_is_not_repaired_by_the_next_one(file):
    file.fail_flush(5)
    file.write(6, PAGE, C)
    file.flush(7)
    assert images(file, "none") == {A + C}
    assert images(file, "all") == {B + C + B}


def test_synchronous_write_is_certain_with_what_was_written_to_its_pages_before(file):
    file.write(5, 100, b"c" * 10)
    file.flush_range(5)
    assert images(file, "none") == {B[:100] + b"c" * 10 + B[110:]}


def test_truncation_is_certain_after_a_flush(file):
    file.truncate(5, 10)
    assert images(file, "none") == {A}
    assert images(file, "all") == {B[:10]}
    file.flush(6)
    assert images(file, "none") == {B[:10]}


# Names


class Names:
    """Events that change names below a folder."""

    def __init__(self, root):
        self.root = os.path.realpath(root)
        self.disk = Disk(root)
        self.count = 0

    def add(self, kind, *names, inode=0, offset=0, data=None):
        text = "\0".join(os.path.join(self.root, name) for name in names).encode()
        self.disk.apply(self.count, Event(kind, 1, inode, offset, text if data is None else data))
        self.count += 1

    def flush(self, inode):
        self.add("flush_begin", inode=inode, data=b"")
        self.add("flush_end", inode=inode, data=b"")

    def found(self):
        return {frozenset(self.disk.after_power_cut("all", Random(seed)).items()) for seed in range(100)}


@pytest.fixture
def names(tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    return Names(tmp_path)


def test_new_file_is_certain_when_its_folder_was_flushed(names, tmp_path):
    names.add("create", "new", inode=5)
    names.add("write", inode=5, data=b"text")
    names.flush(5)
    assert names.found() == {frozenset({("old", b"old")}), frozenset({("old", b"old"), ("new", b"text")})}
    names.flush(tmp_path.stat().st_ino)
    assert names.found() == {frozenset({("old", b"old"), ("new", b"text")})}


def test_renamed_file_has_one_of_its_names(names, tmp_path):
    names.add("create", "new", inode=5)
    names.add("write", inode=5, data=b"text")
    names.flush(5)
    names.flush(tmp_path.stat().st_ino)
    names.add("rename", "new", "old")
    assert names.found() == {frozenset({("old", b"old"), ("new", b"text")}), frozenset({("old", b"text")})}
    names.flush(tmp_path.stat().st_ino)
    assert names.found() == {frozenset({("old", b"text")})}


def test_file_is_not_found_without_its_folder(names, tmp_path):
    names.add("mkdir", "folder", inode=6)
    names.add("create", "folder/new", inode=5)
    names.flush(6)
    assert names.found() == {frozenset({("old", b"old")}),
                             frozenset({("old", b"old"), ("folder", None), ("folder/new", b"")})}


def test_inode_of_a_removed_file_is_used_again(names, tmp_path):
    names.add("create", "new", inode=5)
    names.add("write", inode=5, data=b"text")
    names.add("unlink", "new")
    names.add("create", "newer", inode=5)
    names.flush(5)
    names.flush(tmp_path.stat().st_ino)
    assert names.found() == {frozenset({("old", b"old"), ("newer", b"")})}
