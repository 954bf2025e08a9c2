"""Settings of the documentation.

Build it with ``python -m sphinx -W --keep-going -n -b html docs docs/_build/html``. The build needs no network.
"""

from __future__ import annotations

import ast
import copy
import functools
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes

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
# (otherwise --option is shown with one long dash)
smartquotes = False

html_theme = "furo"
html_title = f"{project} {release}"

# Reference: all public names. (The pages of the classes ask for inherited members, too, because many methods are those
# of compiled base classes.)
autodoc_default_options = {"members": True, "member-order": "groupwise"}
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Cost"]
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

# Every cross-reference must lead somewhere. The exceptions:
nitpicky = True
nitpick_ignore_regex = [
    # The standard library and the optional packages, because their inventories would come over the network.
    (r"py:.*", r"(builtins|collections|contextlib|datetime|io|os|pathlib|types|typing|typing_extensions)(\..*)?"),
    (r"py:.*", r"threading(\..*)?"),
    (r"py:.*", r"(numpy|pandas|polars|pyarrow|tqdm)(\..*)?"),
    # Names in the signatures of stubs, which are written without their modules.
    (r"py:.*", r"(Any|Callable|Collection|Iterable|Iterator|Mapping|MutableMapping|Self|[KVT]|PathLike)(\[.*)?"),
    (r"py:.*", r"AbstractContextManager(\[.*)?"),
    (r"py:.*", r"(str|bytes|int|float|bool|object|None|dict|list|set|tuple|type)(\[.*)?"),
    # Private types. (A public method should not name one: see tastypy_fast.types.)
    (r"py:.*", r"tastypy_fast\.(.*\.)?_\w+\..*"),
    (r"py:.*", r"(tastypy_fast\.(pod|types)\.)?(Key|Pairs|Path|ClaimState|Durability|Mode|Made|Store|SetProxy)"),
    (r"py:.*", r"(tastypy_fast\.(pod|types)\.)?(Scope|ClaimIterator)"),
]

@functools.cache
def functions_of(module: str) -> dict[tuple[str, str], list[ast.FunctionDef]]:
    """Read the methods of a module's classes: from its stub if it is compiled, otherwise from its source.

    An overloaded method has several.
    """
    path = Path(tastypy_fast.__file__).parent.joinpath(*module.split(".")[1:])
    files = (path.with_suffix(".pyi"), path.with_suffix(".py"), path / "__init__.py")
    tree = ast.parse(next(file for file in files if file.exists()).read_text())
    found: dict[tuple[str, str], list[ast.FunctionDef]] = {}
    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for function in (node for node in cls.body if isinstance(node, ast.FunctionDef)):
            found.setdefault((cls.name, function.name), []).append(function)
    for name, functions in found.items():
        # (a source has the method itself, too)
        overloads = [function for function in functions if "overload" in map(ast.unparse, function.decorator_list)]
        found[name] = overloads or functions[:1]
    return found


class Qualified(ast.NodeTransformer):
    """Give the public types their full names, so that they become links. They are shown without."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Replace ``Key`` by ``tastypy_fast.types.Key``."""
        for module in ("tastypy_fast.types", "tastypy_fast.pipeline"):
            if node.id in getattr(sys.modules.get(module), "__all__", ()):
                return ast.parse(f"{module}.{node.id}", mode="eval").body
        return node


def signature_as_written(app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returns: str) -> Any:
    """Show the signature of a method as it is written, because a compiled method has no annotations.

    A stub has those of a compiled method. Besides, Sphinx would show the definition of a type and not its name.
    """
    *module, class_name, method = (name if what == "method" else f"{name}.__init__").split(".")
    if what not in ("class", "method") or module != ["tastypy_fast"]:
        return None
    owner = next((cls for cls in getattr(tastypy_fast, class_name).__mro__ if method in vars(cls)), object)
    is_ours = owner.__module__.startswith("tastypy_fast.")
    functions = functions_of(owner.__module__).get((owner.__name__, method), []) if is_ours else []
    lines = []
    for function in map(Qualified().visit, copy.deepcopy(functions)):
        for parameters in (function.args.posonlyargs, function.args.args):
            del parameters[:1 if parameters and parameters[0].arg in ("self", "cls") else 0]
        result = f" -> {ast.unparse(function.returns)}" if what == "method" and function.returns else ""
        lines.append(f"({ast.unparse(function.args)}){result}")
    # (the directive of Sphinx takes one signature a line, each with the name)
    shown = f"{class_name}.{method}" if what == "method" else class_name
    return (f"\n    {shown}".join(lines), None) if lines else None


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


def without_empty_ends(app: Any, doctree: nodes.document) -> None:
    """Remove the empty line at the end of an example, which only pytest needs."""
    for block in doctree.findall(nodes.literal_block):
        block.rawsource = block.astext().rstrip("\n")
        block[:] = [nodes.Text(block.rawsource)]


def setup(app: Any) -> None:
    """Connect the functions above."""
    app.connect("doctree-read", without_empty_ends)
    app.connect("autodoc-process-signature", signature_as_written)
    app.connect("autodoc-process-docstring", keep_colons, priority=100)
    app.connect("autodoc-skip-member", only_ours)
    for part in ("description", "options", "epilog"):
        app.connect(f"sphinx-click-process-{part}", help_as_text)
