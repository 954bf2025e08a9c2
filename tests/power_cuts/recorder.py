"""Run a program that records what it writes: compile the shim, preload it, and read its records."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

__all__ = ["Event", "compile_shim", "environment", "mark", "read_events", "record", "unsupported"]

SOURCE = Path(__file__).with_name("shim.c")
ROOT = Path(__file__).parents[2]
HEAD = struct.Struct("=IIQQQ")
# The kinds of records, as in shim.c.
KINDS = (None, "write", "dsync_write", "truncate", "flush_begin", "flush_end", "create", "mkdir", "rename", "unlink",
         "mark", "fault")


class Event(NamedTuple):
    """One record of the shim."""

    kind: str
    pid: int
    inode: int
    # Of a write; the new size of a truncated file; 0 for a flush that succeeded.
    offset: int
    data: bytes

    @property
    def words(self) -> list[str]:
        """The words of a mark."""
        return self.data.decode().split() if self.kind == "mark" else []


def unsupported() -> str | None:
    """Return why nothing can be recorded here, or None."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or sys.maxsize < 2**32:
        return "this takes Linux with glibc, 64 bits"
    if not (shutil.which("cc") or shutil.which("gcc")):
        return "this takes a C compiler"
    return None


def compile_shim(folder: Path) -> Path:
    """Compile the shim into a folder, and return the library."""
    library = folder / "shim.so"
    compiler = shutil.which("cc") or shutil.which("gcc")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def environment(shim: Path, below: Path, log: Path, fail: str | None = None) -> dict[str, str]:
    """Return the environment of a program that is recorded. The program makes its ``fail``-th write or flush fail."""
    result = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path])),
        "LD_PRELOAD": str(shim),
        "POWERCUT_BELOW": os.path.realpath(below),
        "POWERCUT_LOG": str(log),
    }
    result.pop("POWERCUT_FAIL", None)
    return result if fail is None else {**result, "POWERCUT_FAIL": fail}


def record(shim: Path, folder: Path, module: str, *arguments: object, fail: str | None = None,
           seconds: float = 120) -> list[Event]:
    """Run ``python -m module`` with the path of a store and the arguments, and return what it has recorded.

    The store is ``store`` in the new folder ``disk`` inside ``folder``.
    """
    disk, log = folder / "disk", folder / "log"
    shutil.rmtree(disk, ignore_errors=True)
    disk.mkdir(parents=True)
    log.unlink(missing_ok=True)
    result = subprocess.run(
        [sys.executable, "-m", module, str(disk / "store"), *map(str, arguments)],
        env=environment(shim, disk, log, fail), capture_output=True, text=True, timeout=seconds,
    )
    assert result.returncode == 0, result.stderr
    return read_events(log)


def read_events(log: Path) -> list[Event]:
    """Return the records in a file."""
    data = log.read_bytes()
    events, at = [], 0
    while at < len(data):
        kind, pid, inode, offset, size = HEAD.unpack_from(data, at)
        at += HEAD.size
        # The size of the data and, for a flush or a truncation, nothing.
        events.append(Event(KINDS[kind], pid, inode, offset, data[at : at + size]))
        at += size
    assert at == len(data)
    return events


def _no_shim(text: bytes) -> None:
    """Ignore a mark, because no shim is preloaded."""


def _find_mark():
    try:
        function = ctypes.CDLL(None).powercut_mark
    except AttributeError:
        return _no_shim
    function.argtypes = [ctypes.c_char_p]
    function.restype = None
    return function


_mark = _find_mark()


def mark(*words: object) -> None:
    """Append a record with these words, in the program that is recorded."""
    _mark(" ".join(map(str, words)).encode())
