"""Identify the boot of this machine, because a power cut is between two boots and a killed process is not."""

from __future__ import annotations

import sys

__all__ = ["boot_id"]


def boot_id() -> bytes | None:
    """Return 16 bytes that differ after each boot, or None on a system that has no such number."""
    try:
        text = _sysctl(b"kern.bootsessionuuid") if sys.platform == "darwin" else _linux()
        number = bytes.fromhex(text.strip().replace("-", ""))
        return number if len(number) == 16 else None
    except (OSError, ValueError, AttributeError):
        return None


def _linux() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _sysctl(name: bytes) -> str:
    import ctypes  # takes milliseconds, and is needed here only

    buffer = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(len(buffer))
    if ctypes.CDLL(None).sysctlbyname(name, buffer, ctypes.byref(size), None, ctypes.c_size_t(0)):
        raise OSError
    return buffer.value.decode("ascii")
