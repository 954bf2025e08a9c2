"""Run a command without the privilege of root to read and write every file, as any user runs it."""

from __future__ import annotations

import os
import sys

__all__ = ["HAS_PERMISSIONS", "RESTRICTED"]

# CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH are removed from the bounding set, so that exec() removes them, too.
_PROGRAM = """
import ctypes, os, sys
for capability in (1, 2):
    if ctypes.CDLL(None).prctl(24, capability, 0, 0, 0):
        sys.exit("the capability cannot be removed")
os.execv(sys.argv[1], sys.argv[1:])
"""
# What comes before a command. Nothing is needed for users other than root.
RESTRICTED = [sys.executable, "-c", _PROGRAM] if os.geteuid() == 0 else []
# Whether a command after RESTRICTED needs the permissions of files. Without capabilities, root never does.
HAS_PERMISSIONS = os.geteuid() != 0 or sys.platform == "linux"
