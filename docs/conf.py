"""Settings of the documentation.

Build it with ``python -m sphinx -W --keep-going -n -b html docs docs/_build/html``. The build needs no network.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import tastypy_fast

project = "tastypy_fast"
author = "The tastypy_fast developers"
copyright = author
version = release = tastypy_fast.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["_build"]

# Pages: Markdown, with links to headings, definition lists and tables.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
highlight_language = "none"

html_theme = "furo"
html_title = f"{project} {release}"

# Reference: all public names. (The pages of the classes ask for inherited members, too, because many methods are those
# of compiled base classes.)
autodoc_default_options = {"members": True, "member-order": "groupwise"}
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 88

# Every cross-reference must lead somewhere. The exceptions:
nitpicky = True
nitpick_ignore_regex = [
    # The standard library and the optional packages, because their inventories would come over the network.
    (r"py:.*", r"(builtins|collections|contextlib|datetime|io|os|pathlib|types|typing|typing_extensions)(\..*)?"),
    (r"py:.*", r"(numpy|pandas|polars|pyarrow|tqdm)(\..*)?"),
    # Names in the signatures of stubs, which are written without their modules.
    (r"py:.*", r"(Any|Callable|Collection|Iterable|Iterator|Mapping|MutableMapping|Self|[KVT]|PathLike)(\[.*)?"),
    (r"py:.*", r"(str|bytes|int|float|bool|object|None|dict|list|set|tuple|type)"),
    # Private types. A public method should not name one: see tastypy_fast.types.
    (r"py:.*", r"tastypy_fast\.(.*\.)?_\w+\..*"),
    (r"py:.*", r"(tastypy_fast\.(pod|types)\.)?(Key|Pairs|ClaimState)"),
]

# The module of the command was called "group" before the packages were made.
COMMAND = next(name for name in ("tastypy_fast.cli.main", "tastypy_fast.cli.group") if importlib.util.find_spec(name))
sys.modules["tastypy_fast_command"] = importlib.import_module(COMMAND)


@functools.cache
def stub_of(module: str) -> dict[tuple[str, str], ast.FunctionDef]:
    """Read the functions of the classes of a compiled module from its stub."""
    stub = Path(tastypy_fast.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".pyi")
    classes = [node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ClassDef)]
    return {(cls.name, node.name): node for cls in classes for node in cls.body if isinstance(node, ast.FunctionDef)}


def signature_from_stub(app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returns: str) -> Any:
    """Show the signature of a compiled method as its stub has it, because a compiled method has no annotations."""
    *module, class_name, method = name.split(".")
    if what != "method" or module != ["tastypy_fast"]:
        return None
    owner = next(cls for cls in getattr(tastypy_fast, class_name).__mro__ if method in vars(cls))
    if not owner.__module__.startswith("tastypy_fast.") or sys.modules[owner.__module__].__file__.endswith(".py"):
        return None
    function = stub_of(owner.__module__)[owner.__name__, method]
    for parameters in (function.args.posonlyargs, function.args.args):
        del parameters[:1 if parameters and parameters[0].arg == "self" else 0]
    return f"({ast.unparse(function.args)})", ast.unparse(function.returns) if function.returns else None


def only_ours(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what a class inherits from Python's own classes, whose texts say nothing of a store."""
    if str(getattr(obj, "__doc__", "")).startswith("Alias for field number"):
        return True  # (a field of a named tuple, which its signature and its text have)
    module = getattr(obj, "__module__", None) or getattr(getattr(obj, "__objclass__", None), "__module__", None)
    is_foreign = isinstance(module, str) and module.partition(".")[0] in ("_collections_abc", "builtins", "collections")
    return True if is_foreign else None


def keep_colons(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep napoleon from reading the first line of a property, up to a colon, as its type: annotations tell that."""
    if what in ("attribute", "property"):
        lines.insert(0, "\\ ")  # (an escaped space, which shows as nothing)


def help_as_text(app: Any, context: Any, lines: list[str]) -> None:
    """Take the help of the command for plain text and not for markup. Its unwrapped paragraphs are literal blocks."""
    text = [line if line.startswith((".. ", "| ")) else re.sub(r"([*`|\\])", r"\\\1", line) for line in lines]
    lines.clear()
    for line, before in zip(text, ["", *text], strict=False):
        if line.startswith("| ") and not before.startswith("| "):
            lines += ["", "::", ""]
        lines.append(f"    {line[2:]}" if line.startswith("| ") else line)


def setup(app: Any) -> None:
    """Connect the functions above."""
    app.connect("autodoc-process-signature", signature_from_stub)
    app.connect("autodoc-process-docstring", keep_colons, priority=100)
    app.connect("autodoc-skip-member", only_ours)
    for part in ("description", "options", "epilog"):
        app.connect(f"sphinx-click-process-{part}", help_as_text)
