"""Permissions: umask, groups, root, and errors that say what to do."""

from __future__ import annotations

import os
import resource
import stat

import pytest

from tastypy_fast import (
    PersistentOrderedDictException,
    SharedTracker,
    StorageError,
    StoreAccessError,
    StoreNotFoundError,
    Tracker,
    maintenance,
)
from tests.support.children import result_of_child
from tests.support.files import contents, made, use

pytestmark = [pytest.mark.all_classes, pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]


@pytest.mark.parametrize("mask", [0o002, 0o027, 0o077])
def test_umask_determines_the_permissions_of_a_store(any_class, path, mask):
    def work(pipe):
        os.umask(mask)
        with any_class(path, init={"a": {"n": 1}}) as store:
            if isinstance(store, SharedTracker):
                next(store.try_keys())
        maintenance.compact(path)
        maintenance.copy(path, path.parent / "copy")
        maintenance.repair(path, path.parent / "repaired")

    result_of_child(work)
    entries = [path, *path.rglob("*"), *(path.parent / "copy").rglob("*"), *(path.parent / "repaired").rglob("*")]
    modes = {str(entry.relative_to(path.parent)): stat.S_IMODE(entry.stat().st_mode) for entry in entries}
    wrong = {name: oct(mode) for name, mode in modes.items()
             if mode != (0o777 if (path.parent / name).is_dir() else 0o666) & ~mask}
    assert wrong == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes other users")
def test_members_of_a_group_share_a_store(path):
    folder = path.parent
    os.chown(folder, 0, 7777)
    folder.chmod(0o2775)
    for parent in folder.parents:
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o005:
            parent.chmod(parent.stat().st_mode | 0o055)

    def as_user(number, work):
        def child(pipe):
            os.setgroups([7777])
            os.setgid(number)
            os.setuid(number)
            # One process has set it for the group, and the other has not.
            os.umask(0o002 if number == 2001 else 0o022)
            work()

        result_of_child(child)

    def first():
        with SharedTracker(path, init={"a": {}, "b": {}}):
            pass

    def other():
        with SharedTracker(path) as tracker:
            for key in tracker.try_keys():
                tracker.mark_done(key)

    as_user(2001, first)
    for number in (2002, 2003, 2001):
        as_user(number, other)
    assert {file.stat().st_gid for file in path.rglob("*")} == {7777}
    with Tracker(path, mode="r") as tracker:
        assert [tracker.done(key) for key in tracker] == [True, True]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads what is not its own")
def test_store_that_root_read_stays_usable_for_its_owner(any_class, path):
    folder = path.parent
    os.chown(folder, 2001, 2001)
    for parent in folder.parents:
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o005:
            parent.chmod(parent.stat().st_mode | 0o055)

    def as_owner(work):
        def child(pipe):
            os.setgid(2001)
            os.setuid(2001)
            work()

        result_of_child(child)

    as_owner(lambda: made(any_class, path))
    for name in ("lock.mdb", "owner.lock"):
        (path / name).unlink()
    assert contents(path, any_class) == {"a": 0, "b": 1, "c": 2}
    maintenance.verify(path)
    as_owner(lambda: use(any_class, path))


def forbid(number):
    def child(pipe, work):
        if os.geteuid() == 0:
            os.setgid(number)
            os.setuid(number)
        work()

    return lambda work: result_of_child(child, work)


@pytest.mark.parametrize("mode", ["w", "r"])
def test_errors_at_opening_are_package_errors_and_say_what_to_do(private_class, tmp_path, mode):
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o005:
            parent.chmod(parent.stat().st_mode | 0o055)
    tmp_path.chmod(0o755)
    path = tmp_path / "store"
    made(private_class, path)
    path.chmod(0o700)

    def denied():
        with pytest.raises(StoreAccessError) as raised:
            private_class(path, mode=mode)
        assert isinstance(raised.value, PermissionError)
        assert ('mode="r"' in str(raised.value)) == (mode == "w")

    forbid(65534)(denied)
    long_name = tmp_path / ("x" * 300)
    with pytest.raises((StorageError, StoreNotFoundError), match="shorter"):
        private_class(long_name, mode=mode)
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(PersistentOrderedDictException, match="circle"):
        private_class(tmp_path / "circle", mode=mode)

    def without_descriptors(pipe):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/dev/fd")))
        for limit in range(highest, highest + 40):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                private_class(path, mode=mode).close()
                return
            except StorageError as error:
                said = str(error)
            assert "ulimit -n" in said
        raise AssertionError("never enough")

    result_of_child(without_descriptors)
    assert contents(path, private_class) == {"a": 0, "b": 1, "c": 2}
