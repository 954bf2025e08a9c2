"""Import optional packages when they are needed, and name the extra to install if they are missing."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["optional_import"]


def optional_import(module: str, extra: str, user: str) -> Any:
    """Import a module for ``user``. Raises ImportError with the extra to install if the package is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{user} needs {package}, which comes with: pip install 'tastypy_fast[{extra}]' ({error})", name=package
        ) from error
