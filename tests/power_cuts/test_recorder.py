"""The shim records everything that a program does to its files, and makes calls fail."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.power_cuts.disk_model import Disk
from tests.power_cuts.recorder import environment, read_events, record
from tests.power_cuts.simulation import is_mapped

PROGRAM = """
import errno, os, sys
os.chdir(sys.argv[1])
below = os.getcwd()
def path(name):
    return os.path.join(below, name)
os.mkdir(path("folder"))
fd = os.open(path("folder/one"), os.O_RDWR | os.O_CREAT)
os.write(fd, b"abc")
os.pwrite(fd, b"def", 10)
os.writev(fd, [b"gh", b"i"])
os.pwritev(fd, [b"jk", b"l"], 20)
os.ftruncate(fd, 22)
os.fsync(fd)
os.fdatasync(fd)
os.close(fd)
fd = os.open(path("folder/one"), os.O_WRONLY | os.O_DSYNC)
os.pwrite(fd, b"m", 0)
os.close(fd)
os.rename(path("folder/one"), path("two"))
os.rmdir(path("folder"))
with open(path("two"), "w"):
    pass
os.unlink(path("two"))
"""
EXPECTED = [
    ("mkdir", "folder"), ("create", "folder/one"), ("write", 0, b"abc"), ("write", 10, b"def"), ("write", 3, b"ghi"),
    ("write", 20, b"jkl"), ("truncate", 22, b""), ("flush_begin", 0, b""), ("flush_end", 0, b""),
    ("flush_begin", 0, b""), ("flush_end", 0, b""), ("dsync_write", 0, b"m"), ("rename", "folder/one", "two"),
    ("unlink", "folder"), ("truncate", 0, b""), ("unlink", "two"),
]


@pytest.fixture
def run(shim, tmp_path):
    """Run a program below a folder, and return its status and what was recorded."""
    below = tmp_path / "below"
    below.mkdir()

    def run(program, fail=None):
        log = tmp_path / "log"
        status = subprocess.run([sys.executable, "-c", program, str(below)],
                                env=environment(shim, below, log, fail)).returncode
        return status, read_events(log)

    return run


def test_every_call_is_recorded(run, tmp_path):
    status, events = run(PROGRAM)
    assert status == 0
    below = os.path.realpath(tmp_path / "below")
    assert [
        (event.kind, *(os.path.relpath(name, below) for name in event.data.decode().split("\0")))
        if event.kind in ("mkdir", "create", "rename", "unlink") else (event.kind, event.offset, event.data)
        for event in events
    ] == EXPECTED
    assert not os.listdir(below)


@pytest.mark.parametrize(("fail", "code"), [
    (f"write:1:{errno.ENOSPC}", f"assert error_of(os.pwrite, fd, b'abcd', 0) == {errno.ENOSPC}"),
    (f"flush:1:{errno.EIO}", f"assert error_of(os.fsync, fd) == {errno.EIO}"),
    ("write:1:short", "assert os.pwritev(fd, [b'a', b'bcd'], 0) == 2"),
    ("write:2:short", "assert os.write(fd, b'abcd') == 4 and os.write(fd, b'abcd') == 2"),
])
def test_chosen_call_fails_once(run, fail, code):
    status, events = run(f"""
import os, sys
def error_of(function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
fd = os.open(sys.argv[1] + "/file", os.O_RDWR | os.O_CREAT)
{code}
os.pwrite(fd, b"abcd", 0)
os.fsync(fd)
""", fail)
    assert status == 0
    assert [event.kind for event in events].count("fault") == 1
    assert events[-1].kind == "flush_end"
    assert events[-1].offset == 0


def test_process_is_killed_in_a_write(run):
    status, events = run("import os, sys\nopen(sys.argv[1] + '/file', 'wb').write(b'text')", "write:1:kill")
    assert status == -9
    assert [event.kind for event in events] == ["create", "fault"]


@pytest.mark.parametrize("workload", ["pod-wal", "shared-killed", "compact/tracker"])
def test_recorded_calls_make_the_files_that_a_workload_leaves(shim, tmp_path, seed, workload):
    events = record(shim, tmp_path, "tests.power_cuts.workloads", workload, "normal", seed)
    root = tmp_path / "disk"
    disk = Disk(root, is_empty=True)
    for index, event in enumerate(events):
        disk.apply(index, event)
    found = {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}
    image = disk.as_seen()
    assert image.keys() == found.keys()
    assert len(found) >= 4
    assert {name: content for name, content in image.items() if not is_mapped(Path(name))} == {
        name: content for name, content in found.items() if not is_mapped(Path(name))
    }
