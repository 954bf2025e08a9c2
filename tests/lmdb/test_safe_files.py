"""Links, pipes and closed descriptors in place of a store's files."""

from __future__ import annotations

import os
import shutil
import socket
import stat

import pytest

from tastypy_fast import (
    POD,
    NotAStoreError,
    SharedTracker,
    StorageError,
    UnsafeFileError,
    maintenance,
)
from tests.support.children import run
from tests.support.command import call
from tests.support.files import contents, made, use

pytestmark = [pytest.mark.all_classes, pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]

KEPT = b"a file of the user's\n" * 400


# Links, pipes and other odd files

# Replacements for each file of a store, which point elsewhere or block at opening.
FILES = ["data.mdb", "lock.mdb", "owner.lock", "turn.lock", "workers", "workers/0", "data.compacted"]


ODD = {
    "link": lambda name: name.symlink_to(kept_beside(name)),
    "dangling link": lambda name: name.symlink_to("nowhere"),
    "pipe": os.mkfifo,
    "device": lambda name: os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(1, 5)),
    "socket": lambda name: bind(name),
}


def kept_beside(name):
    return next(folder for folder in name.parents if folder.name == "store").parent / "kept"


def bind(name):
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(name.parent)  # The path of a socket has a maximum length.
        try:
            one.bind(name.name)
        finally:
            os.chdir(here)


USES = {
    "open": lambda cls, path, target: use(cls, path),
    "read": lambda cls, path, target: contents(path, cls),
    "verify": lambda cls, path, target: maintenance.verify(path),
    "copy": lambda cls, path, target: maintenance.copy(path, target),
    "compact": lambda cls, path, target: maintenance.compact(path),
    "repair": lambda cls, path, target: maintenance.repair(path, target),
    "status": lambda cls, path, target: command("status", path),
}


def command(*words):
    """What the command prints on stderr."""
    error = call(*words)[2]
    assert "Traceback" not in error
    return error


# The class that has all of these files, links that point elsewhere, and pipes, which block, in place of the files that
# the engine, a private and a shared store open. The others run with ``-m storm``.
ORDINARY = {("link", name) for name in FILES} | {("pipe", name) for name in ("data.mdb", "owner.lock", "workers/0")}
ODD_CASES = [
    pytest.param(cls, name, odd, marks=() if cls is SharedTracker and (odd, name) in ORDINARY else pytest.mark.storm)
    for cls in (POD, SharedTracker) for name in FILES for odd in ODD
]


@pytest.mark.parametrize(("cls", "name", "odd"), ODD_CASES)
def test_link_or_pipe_in_place_of_a_file_is_refused_at_once(tmp_path, cls, name, odd):
    path, kept = tmp_path / "store", tmp_path / "kept"
    for what, work in USES.items():
        shutil.rmtree(path, ignore_errors=True)
        made(cls, path)
        kept.write_bytes(KEPT)
        file = path / name
        if file.is_dir():
            shutil.rmtree(file)
        elif file.exists():
            file.unlink()
        if not file.parent.exists():
            file.parent.mkdir()
        if odd == "device" and os.geteuid() != 0:
            pytest.skip("only root makes devices")
        ODD[odd](file)
        try:
            found = work(cls, path, tmp_path / f"target-{what}")
            said = "\n".join(found) if what == "verify" else found if what == "status" else ""
        except (UnsafeFileError, NotAStoreError) as error:
            assert what != "verify"  # This command reports the file.
            said = str(error)
        except StorageError as error:
            said = f"{error} {error.__cause__}"
        assert kept.read_bytes() == KEPT, what
        assert not (tmp_path / "nowhere").exists(), what
        assert not (path / "nowhere").exists(), what
        # An operation does not check a file that it does not need, or it creates the file again.
        if what == "verify":
            assert name in said or name == "data.compacted", said
        if name in ({"data.mdb", "owner.lock"} if what == "repair" else {"data.mdb", "lock.mdb", "owner.lock"}):
            assert name in said, (what, said)


def test_error_names_the_link_and_the_store_is_unchanged(any_class, path):
    made(any_class, path)
    (path / "owner.lock").rename(path.parent / "elsewhere")
    (path / "owner.lock").symlink_to(path.parent / "elsewhere")
    with pytest.raises(UnsafeFileError, match="symbolic link") as raised:
        any_class(path)
    assert raised.value.filename == str(path / "owner.lock")
    (path / "owner.lock").unlink()
    (path.parent / "elsewhere").rename(path / "owner.lock")
    with any_class(path) as store:
        assert store.keys() == ["a", "b", "c"]


def test_compact_does_not_write_through_a_link(path):
    made(POD, path)
    kept = path.parent / "kept"
    kept.write_bytes(KEPT)
    (path / "data.compacted").symlink_to(kept)
    maintenance.compact(path)
    assert kept.read_bytes() == KEPT
    assert not (path / "data.compacted").is_symlink()
    assert contents(path, POD) == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize("name", ["lock.mdb", "owner.lock", "workers/0"])
def test_hard_link_to_a_users_file_is_not_written(any_class, path, name):
    made(any_class, path)
    kept = path.parent / "kept"
    kept.write_bytes(KEPT)
    (path / name).unlink(missing_ok=True)
    (path / name).parent.mkdir(exist_ok=True)
    os.link(kept, path / name)
    if name == "lock.mdb":
        with pytest.raises(UnsafeFileError, match="hard link") as raised:
            use(any_class, path)
        assert raised.value.filename == str(path / name)
    else:
        use(any_class, path)
    assert kept.read_bytes() == KEPT


# Standard descriptors that are closed

DETACHED = """
    import os, subprocess, sys
    import tastypy_fast
    from tastypy_fast import maintenance

    for number in range(3):
        os.close(number)
    cls = getattr(tastypy_fast, sys.argv[2])
    store = cls(sys.argv[1], init={"a": {"n": 1}})
    if hasattr(store, "claims"):
        next(store.try_keys())
    store["b"] = {"n": 2}
    store.sync()
    low = []
    for number in range(3):
        try:
            low.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            pass
    # A child that prints errors to its descriptors, whatever they refer to.
    child = os.fork()
    if child == 0:
        os.execv("/bin/sh", ["sh", "-c", "echo 0123456789 >&0; echo 0123456789; echo 0123456789 >&2; true"])
    os.waitpid(child, 0)
    findings = maintenance.verify(sys.argv[1])
    store.close()
    with open(sys.argv[3], "w") as file:
        print(low, findings, file=file)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc here")
def test_no_file_of_a_store_is_a_standard_stream(any_class, path):
    report = path.parent / "report"
    status, _, errors = run(DETACHED, path, any_class.__name__, report)
    assert (status, errors) == (0, "")
    assert report.read_text() == "[] []\n"
    assert contents(path, any_class) == {"a": 1, "b": 2}


@pytest.mark.parametrize("closed", ["0", "1", "2", "1 2", "0 1 2"])
def test_command_works_without_standard_streams(path, closed):
    made(POD, path)
    program = """
        import os, sys
        for number in map(int, sys.argv[2].split()):
            os.close(number)
        os.execv(sys.executable, [sys.executable, "-m", "tastypy_fast", *sys.argv[3:], sys.argv[1]])
    """
    for command in ("status", "verify"):
        status, _, errors = run(program, path, closed, command)
        # A closed stdout is an error, because what the command prints would be lost. It must not go to the store.
        assert status == (4 if "1" in closed else 0), command
        assert errors == ("tastypy-fast: stdout cannot be written: Bad file descriptor\n" if closed == "1" else "")
    assert maintenance.verify(path) == []


INHERITED = """
    import os, sys
    import tastypy_fast
    store = getattr(tastypy_fast, sys.argv[2])(sys.argv[1], init={"a": {"n": 1}})
    if hasattr(store, "claims"):
        next(store.try_keys())
    store["b"] = {"n": 2}
    store.sync()
    reader = tastypy_fast.POD(sys.argv[3], mode="r")
    os.execv("/bin/ls", ["ls", "-l", "/proc/self/fd"])
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc here")
def test_every_file_of_a_store_is_closed_at_exec(any_class, path):
    made(POD, path.parent / "read")
    status, output, errors = run(INHERITED, path, any_class.__name__, path.parent / "read")
    assert (status, errors) == (0, "")
    assert str(path.parent) not in output
