"""Packages for comfort, which are imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["optional_import"]


def optional_import(module: str, extra: str, user: str) -> Any:
    """Import a module for ``user``. Raises ImportError, which names the extra to install, where there is none."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{user} needs {package}, which comes with: pip install 'tastypy_fast[{extra}]' ({error})", name=package
        ) from error
