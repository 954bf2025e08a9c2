"""Start Python processes that cannot import some modules, as a machine on which they are not installed."""

from __future__ import annotations

import os
import sys

CODE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""


def without(folder, *names):
    """The environment of processes that cannot import these modules. ``folder`` is a new one."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CODE.format(names=names))
    paths = [path for path in sys.path if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *paths])}
