"""Print the output of commands that run at once in several processes, one after the other, above a progress bar."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import stat
from collections.abc import Iterator
from typing import IO, Any, TextIO

__all__ = ["BarStream", "Output"]

# The size, in bytes, of one read and write while output is copied.
_BLOCK = 1 << 16
# Move to the beginning of the line, and erase it.
_ERASE = b"\r\x1b[K"
# How much of a bar is kept, in bytes.
_MAX_BAR = 4096


class Output:
    """Where the output of commands goes, one command after the other.

    ``file`` is the path of a file to append to. Otherwise it goes to this process's stdout and stderr, or with
    ``stderr_only`` all of it to stderr. ``lock`` is the path of a file that is locked meanwhile; a lock ends with its
    process. With ``has_bar``, a progress bar may stand in the last line of the terminal. It is erased first, and drawn
    again afterwards, as BarStream keeps it in the lock file.
    """

    def __init__(self, file: str | None = None, *, lock: str | None = None, stderr_only: bool = False,
                 has_bar: bool = False) -> None:
        self._file = file
        self._lock = lock
        self._stderr_only = stderr_only
        self._has_bar = has_bar
        self._lock_fd: int | None = None
        self._fds: tuple[int, int] | None = None

    def __reduce__(self) -> Any:
        # Without the descriptors, which are opened in the process that uses them.
        return _make_output, (self._file, self._lock, self._stderr_only, self._has_bar)

    def open(self) -> None:
        """Open the files, in the process that writes. Raises OSError."""
        if self._file is not None:
            fd = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            self._fds, self._lock_fd = (fd, fd), fd
            return
        self._fds = (2, 2) if self._stderr_only else (1, 2)
        if self._lock is not None:
            with contextlib.suppress(OSError):  # the program has ended, and has removed it
                self._lock_fd = os.open(self._lock, os.O_RDWR)

    def close(self) -> None:
        """Close the files."""
        for fd in {self._lock_fd, *(self._fds or ())} - {None, 1, 2}:
            os.close(fd)
        self._fds = self._lock_fd = None

    def write(self, *files: IO[bytes] | None) -> None:
        """Copy what a command wrote to stdout and stderr, in one piece. None stands for no output.

        Raises OSError if it cannot be written, also if the reader of a pipe has exited.
        """
        sizes = [os.fstat(file.fileno()).st_size if file is not None else 0 for file in files]
        if not any(sizes):
            return
        if self._fds is None:
            self.open()
        assert self._fds is not None
        with self._locked(), _allowed_to_write_to_terminal():
            for to, file, size in zip(self._fds, files, sizes, strict=True):
                if file is not None and size:
                    self._copy(to, file.fileno(), size)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self._lock_fd is None:
            yield
            return
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def _copy(self, to: int, source: int, size: int) -> None:
        # By position, because a process that the command left behind may still write, and shares the offset.
        has_bar = self._has_bar and os.isatty(to)
        try:
            if has_bar:
                _write_all(to, _ERASE)
            block = b""
            position = 0
            while position < size and (block := os.pread(source, min(_BLOCK, size - position), position)):
                position += len(block)
                _write_all(to, block)
            if has_bar:
                bar = os.pread(self._lock_fd, _MAX_BAR, 0) if self._lock_fd is not None else b""
                _write_all(to, bar if block.endswith(b"\n") else b"\n" + bar)
        except OSError as error:
            # A run in the background goes on without the terminal that it was started from. On a disk, EIO is a fault.
            if error.errno != errno.EIO or not stat.S_ISCHR(os.fstat(to).st_mode):
                raise


def _make_output(file: str | None, lock: str | None, stderr_only: bool, has_bar: bool) -> Output:
    return Output(file, lock=lock, stderr_only=stderr_only, has_bar=has_bar)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data):]
        except BlockingIOError:
            select.select([], [fd], [])


@contextlib.contextmanager
def _allowed_to_write_to_terminal() -> Iterator[None]:
    """Let this process write to its terminal from the background. Otherwise "stty tostop" would stop it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class BarStream:
    """The stream of a progress bar, which keeps the bar in the lock file of the output, for those who write above it.

    It has the methods that tqdm calls. While output is being written, the bar is not drawn, because the driver must not
    wait for a terminal that is stopped.
    """

    def __init__(self, stream: TextIO, lock: str) -> None:
        self._stream = stream
        self._fd = os.open(lock, os.O_RDWR)

    def write(self, text: str) -> int:
        """Draw the bar, or end its line."""
        with contextlib.suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                bar = text.encode(self._stream.encoding or "utf-8", "replace") if text.startswith("\r") else b""
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, bar[:_MAX_BAR], 0)
                self._stream.write(text)
                self._stream.flush()
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        return len(text)

    def close(self) -> None:
        """Close the lock file."""
        os.close(self._fd)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
