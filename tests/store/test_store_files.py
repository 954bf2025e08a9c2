"""Removed, replaced and forbidden files."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tastypy_fast import (
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
    StoreConflictError,
    StoreNotFoundError,
)
from tests.support.children import result_of_child, run

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


# Removed files


def test_store_that_is_removed_while_it_is_open_raises_at_the_sync(any_class, path):
    store = any_class(path, init={"a": {"x": 1}})
    store.sync()
    shutil.rmtree(path)
    # Pages that were read stay mapped.
    assert store["a"]["x"] == 1
    store["b"] = {}
    with pytest.raises(PersistentOrderedDictException, match="removed"):
        store.sync()
    with pytest.raises(StoreConflictError, match="removed"):
        any_class(path)
    assert store.dirty() == {"b"}
    store.revert()
    store.close()
    with any_class(path) as again:
        assert again.keys() == []


def test_store_that_is_replaced_while_it_is_open_is_not_written(any_class, tmp_path):
    with any_class(tmp_path / "other", init={"other": {}}):
        pass
    store = any_class(tmp_path / "store", init={"a": {}})
    store.sync()
    shutil.rmtree(tmp_path / "store")
    shutil.copytree(tmp_path / "other", tmp_path / "store")
    store["b"] = {}
    with pytest.raises(PersistentOrderedDictException, match="replaced"):
        store.sync()
    with pytest.raises(StoreConflictError):
        any_class(tmp_path / "store")
    store.revert()
    store.close()
    with any_class(tmp_path / "store") as again:
        assert again.keys() == ["other"]
        again._check()


def test_moved_store_opens_at_its_new_path(any_class, tmp_path):
    with any_class(tmp_path / "before", init={"a": {}}):
        pass
    os.rename(tmp_path / "before", tmp_path / "after")
    with any_class(tmp_path / "after") as store:
        assert store.keys() == ["a"]
    with pytest.raises(StoreNotFoundError):
        any_class(tmp_path / "before", mode="r")


# Permissions


def as_unprivileged_user(work):
    """Run code as an unprivileged user if this process is root, because permissions do not stop root."""

    def child(pipe):
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        work()

    result_of_child(child)


@pytest.fixture
def change_permissions(tmp_path):
    """Change the permissions of a file or folder until the test ends. Every user can reach ``tmp_path`` itself."""
    before = {}

    def change(path, mode):
        before.setdefault(path, stat.S_IMODE(path.stat().st_mode))
        path.chmod(mode)

    folder = Path(os.path.realpath(tmp_path))
    for parent in (folder, *folder.parents):
        mode = stat.S_IMODE(parent.stat().st_mode)
        if mode & 0o005 != 0o005 and parent.stat().st_uid == os.geteuid():
            change(parent, mode | 0o055)
    yield change
    for path, mode in reversed(before.items()):
        path.chmod(mode)


@pytest.mark.parametrize(
    ("name", "closed", "left", "mode"),
    [
        ("store", ["store"], 0o000, "w"),
        ("store", ["store"], 0o000, "r"),
        ("store", ["store", "store/data.mdb", "store/lock.mdb"], 0o555, "w"),
        ("new", ["."], 0o555, "w"),
    ],
    ids=["no rights", "no rights to read", "no right to write", "no right to create"],
)
def test_missing_permission_raises_an_error_that_names_the_path(any_class, tmp_path, change_permissions, name, closed,
                                                               left, mode):
    with any_class(tmp_path / "store", init={"a": {}}):
        pass
    for entry in reversed(closed):
        change_permissions(tmp_path / entry, left)

    def work():
        with pytest.raises(OSError, match="denied") as raised:
            any_class(tmp_path / name, mode=mode)
        assert str(tmp_path) in str(raised.value)

    as_unprivileged_user(work)


def test_files_without_the_right_to_write_are_read(any_class, path, change_permissions):
    with any_class(path, init={"a": {"x": 1}}):
        pass
    for entry in (*path.iterdir(), path):
        change_permissions(entry, 0o555)

    def work():
        with any_class(path, mode="r") as reader:
            assert reader["a"]["x"] == 1
            assert reader.keys() == ["a"]

    as_unprivileged_user(work)


def test_read_only_file_system_is_read(any_class, tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a file system, and not everywhere")
    path = tmp_path / "store"
    try:
        with any_class(path, init={"a": {"x": 1}}):
            pass
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with any_class(path, mode="r") as reader:
            assert reader["a"]["x"] == 1
            assert reader.keys() == ["a"]
            assert len(reader) == 1
        with pytest.raises(OSError, match=r"Read-only|read-only"):
            any_class(path)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_failed_open_leaves_nothing_locked(any_class, path):
    """This holds for this process and for others."""
    with any_class(path, init={"a": {}}):
        pass
    data = (path / "data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(b"damaged")
    for _ in range(3):
        with pytest.raises(PersistentOrderedDictIntegrityError):
            any_class(path)
    (path / "data.mdb").write_bytes(data)
    program = "import sys, tastypy_fast; print(getattr(tastypy_fast, sys.argv[2])(sys.argv[1]).keys())"
    status, output, errors = run(program, path, any_class.__name__)
    assert (status, output, errors) == (0, "['a']\n", "")
    with any_class(path) as store:
        assert store.keys() == ["a"]


def test_importing_the_package_opens_nothing(tmp_path):
    program = "import os, sys; before = os.listdir('/proc/self/fd'); import tastypy_fast;"
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("no /proc here")
    program += "assert len(os.listdir('/proc/self/fd')) == len(before); assert not os.listdir(); print('ok')"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")
