"""The package as a whole: its names, the direction of its imports, its docstrings."""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import inspect
import os
import re
from pathlib import Path

import pytest
from hypothesis import settings

import tastypy_fast
from tests.support.storm import is_storm

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tastypy_fast"
CYTHON = ROOT / "src_cython"


def test_package_exports_exactly_these_names():
    names = """
        DEFAULT_FILE_SIZE DEFAULT_SYNC_AT DEFAULT_SYNC_EVERY POD SharedPOD SharedPersistentOrderedDict
        SharedProgressTracker SharedTracker
        Claim NotLockedError CalledClosedTrackerError DamagedInputError DiskFullError DuplicateKeyError ForkedStoreError
        InvalidKeyError NetworkFileSystemWarning NewerFormatError NotAStoreError PersistentOrderedDict
        PersistentOrderedDictException PersistentOrderedDictIntegrityError ProgressTracker ReadOnlyStoreError
        StorageError StoreConflictError StoreAccessError StoreInUseError StoreKindError StoreNotFoundError
        StorePathError Tracker UnsafeFileError UnstorableValueError
        ExecutorLostError RunInProgressError TasksFailedError UnsendableFunctionError WorkerStartError
    """
    assert sorted(tastypy_fast.__all__) == sorted(names.split())
    assert all(hasattr(tastypy_fast, name) for name in tastypy_fast.__all__)


def test_every_module_defines_the_names_in_its_all():
    for name, path in sorted(sources().items()):
        if name != "demo" and path.name != "__init__.py":
            module = importlib.import_module(f"tastypy_fast.{name}")
            assert all(hasattr(module, exported) for exported in module.__all__), name


def test_every_error_is_below_the_packages_own():
    errors = [value for name, value in vars(tastypy_fast).items()
              if isinstance(value, type) and issubclass(value, Exception) and not issubclass(value, Warning)]
    assert len(errors) == 26
    assert all(issubclass(error, tastypy_fast.PersistentOrderedDictException) for error in errors)
    assert tastypy_fast.PersistentOrderedDictException.__base__ is Exception


@pytest.mark.parametrize(("error", "builtin"), [
    ("DuplicateKeyError", ValueError), ("InvalidKeyError", TypeError), ("InvalidKeyError", ValueError),
    ("UnstorableValueError", TypeError), ("UnstorableValueError", ValueError), ("CalledClosedTrackerError", ValueError),
    ("ReadOnlyStoreError", OSError), ("ForkedStoreError", RuntimeError), ("StoreConflictError", ValueError),
    ("StorePathError", NotADirectoryError), ("StoreNotFoundError", FileNotFoundError),
    ("NotAStoreError", FileExistsError), ("StoreInUseError", BlockingIOError), ("StoreKindError", TypeError),
    ("NotLockedError", RuntimeError),
    ("NewerFormatError", NotImplementedError), ("DiskFullError", OSError), ("StorageError", OSError),
    ("StoreAccessError", PermissionError), ("UnsafeFileError", OSError),
    ("DamagedInputError", ValueError), ("RunInProgressError", RuntimeError), ("TasksFailedError", RuntimeError),
    ("UnsendableFunctionError", TypeError), ("WorkerStartError", RuntimeError),
    ("ExecutorLostError", ConnectionError),
])
def test_error_is_also_the_matching_builtin_error(error, builtin):
    assert issubclass(getattr(tastypy_fast, error), builtin)


def test_import_on_windows_raises_an_error_with_the_supported_systems(run_python):
    code = """
import sys
sys.platform = "win32"
try:
    import tastypy_fast
except ImportError as error:
    print(error, [name for name in sys.modules if name.startswith("tastypy_fast.") or name in ("lmdb", "orjson")])
"""
    printed = run_python(code, prelude="")
    assert "Linux and macOS only" in printed
    assert "WSL" in printed
    assert printed.rstrip().endswith("[]")


# The tests themselves


def test_ordinary_run_uses_fixed_seeds(request):
    assert settings.default.derandomize is not is_storm(request.config)
    for path in sorted((ROOT / "tests").rglob("*.py")):
        unseeded = re.findall(r"\brandom\.(?!Random\b)(\w+)\(", path.read_text())
        assert unseeded == (["SystemRandom"] if path == ROOT / "tests" / "conftest.py" else []), path.name


# Imports go to lower layers

# The layers, lowest first. A module imports from its own package and from lower layers only.
LAYERS = (
    {"exceptions", "_type_parameters"},
    {"types", "_optional", "_paths"},
    {"_lmdb"},
    {"_core"},
    {"_store"},
    {"_shared"},
    {"_formats", "_inspect"},
    {"pipeline"},
    {"_mixins", "maintenance"},
    {"pod"},
    {"tracker", "shared_pod"},
    {"shared_tracker"},
    {"demo", "cli"},
    {"__main__"},
)
# They use the package as a program does, so they import its public names from the root.
PROGRAMS = {"demo", "cli"}


def layer_of(name):
    first = name.partition(".")[0]
    return next(number for number, layer in enumerate(LAYERS) if first in layer)


@functools.cache
def sources():
    """The source of each module, by its name inside the package; a compiled module's ``.pxd`` is read with it."""
    found = {}
    for root in (PACKAGE, CYTHON / "tastypy_fast"):
        for path in [*root.rglob("*.py"), *root.rglob("*.pyx")]:
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix("__init__").rstrip(".")
            if name:
                assert found.get(name, path) == path, f"{name} is there twice"
                found[name] = path
    assert {"pod", "exceptions", "_store.store", "_core.key_codec", "_core.write_cache", "cli"} <= found.keys()
    return found


def imports_of(path):
    """(module, names) of each import in a source; also of a cimport, which ast does not know."""
    if path.suffix == ".pyx":
        declared = path.with_suffix(".pxd")
        lines = path.read_text().splitlines() + (declared.read_text().splitlines() if declared.exists() else [])
        code = "\n".join(
            line.replace(" cimport ", " import ").replace("cimport ", "import ") for line in logical_lines(lines)
        )
    else:
        code = path.read_text()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module, {alias.name for alias in node.names}


def logical_lines(lines):
    """The import statements at the start of lines in a Cython module, each as one line."""
    statement = ""
    for line in lines:
        if statement or line.startswith(("from ", "import ", "cimport ")):
            statement += line.split("#")[0].strip() + " "
            if statement.count("(") == statement.count(")"):
                yield statement
                statement = ""


def package_imports(path):
    """The modules of the package that a source imports, also those that only annotations need."""
    for module, names in imports_of(path):
        if module == "tastypy_fast":
            yield from (name if is_module(name) else "" for name in names or {""})
        elif module.startswith("tastypy_fast."):
            inner = module.removeprefix("tastypy_fast.")
            inside = {f"{inner}.{name}" for name in names or () if is_module(f"{inner}.{name}")}
            yield from inside or {inner}


def is_module(name):
    return name in sources()


def test_imports_go_to_lower_layers_only():
    for name, path in sources().items():
        for imported in package_imports(path):
            if not imported:
                assert name.partition(".")[0] in PROGRAMS, f"{name} imports from the package's own root"
                continue
            same = name.partition(".")[0] == imported.partition(".")[0]
            assert same or layer_of(imported) < layer_of(name), f"{name} imports {imported}, which is not below it"


def test_imports_have_no_cycle():
    graph = {name: set(package_imports(path)) - {name, ""} for name, path in sources().items()}
    done: set[str] = set()
    while left := graph.keys() - done:
        ready = {name for name in left if {other for other in graph[name] if other in graph} <= done}
        assert ready, f"a circle among {sorted(left)}"
        done |= ready


def test_no_import_is_for_type_checkers_only():
    assert [name for name, path in sources().items() if "TYPE_CHECKING" in path.read_text()] == []


def test_package_init_imports_only_from_public_modules():
    imported = {module for module, _ in imports_of(PACKAGE / "__init__.py")}
    assert {module for module in imported if module.startswith("tastypy_fast")} == {
        "tastypy_fast.exceptions", "tastypy_fast.pod", "tastypy_fast.shared_pod", "tastypy_fast.shared_tracker",
        "tastypy_fast.tracker", "tastypy_fast.types", "tastypy_fast",  # the last one for maintenance, at its first use
    }


def test_maintenance_is_imported_at_its_first_use(run_python):
    code = """
import sys, tastypy_fast
assert "maintenance" in dir(tastypy_fast)
print([name for name in sys.modules if name.startswith("tastypy_fast.maintenance")])
print(tastypy_fast.maintenance.verify.__name__, "maintenance" in vars(tastypy_fast))
try:
    tastypy_fast.maintenanse
except AttributeError as error:
    print(error)
"""
    assert run_python(code, prelude="").splitlines() == [
        "[]", "verify True", "module 'tastypy_fast' has no attribute 'maintenanse'",
    ]


def test_only_the_engine_imports_lmdb():
    importers = {name for name, path in sources().items() for module, _ in imports_of(path)
                 if module.partition(".")[0] == "lmdb"}
    assert importers == {"_lmdb.engine"}


# Docstrings

CLASSES = [tastypy_fast.PersistentOrderedDict, tastypy_fast.ProgressTracker, tastypy_fast.SharedPersistentOrderedDict,
           tastypy_fast.SharedProgressTracker]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_public_member_has_a_docstring(cls):
    for name, member in inspect.getmembers(cls):
        if not name.startswith("_"):
            assert inspect.getdoc(member), name
            # MutableMapping's own docstrings are Python's and do not describe a store.
            owner = next(base for base in cls.__mro__ if name in vars(base))
            assert owner.__module__.startswith("tastypy_fast") or name == "pop", name
    assert inspect.getdoc(cls)


def test_every_module_has_a_docstring():
    for name, path in sources().items():
        assert importlib.import_module(f"tastypy_fast.{name}").__doc__, path


COMPILED = sorted(name for name, path in sources().items() if path.suffix == ".pyx")


@pytest.mark.parametrize("name", COMPILED)
def test_examples_of_compiled_modules_run(name, tmp_path, monkeypatch):
    """pytest's own collection finds no examples in compiled modules."""
    module = importlib.import_module(f"tastypy_fast.{name}")
    finder = doctest.DocTestFinder(recurse=False, exclude_empty=True)
    members = {name: module, **{
        f"{cls.__name__}.{member}": value for cls in vars(module).values() if isinstance(cls, type)
        and cls.__module__ == module.__name__ for member, value in vars(cls).items() if inspect.getdoc(value)
    }}
    runner = doctest.DocTestRunner()
    monkeypatch.chdir(tmp_path)
    for number, (title, member) in enumerate(members.items()):
        names = {exported: getattr(tastypy_fast, exported) for exported in tastypy_fast.__all__}
        names["path"] = str(tmp_path / f"store-{number}")
        for example in finder.find(member, title, module=False, globs=names):
            runner.run(example)
    assert runner.failures == 0
    if name == "_core.handles":
        assert runner.tries >= 10


@pytest.mark.parametrize("cls", CLASSES[2:])
def test_examples_of_shared_classes_run(cls, tmp_path, monkeypatch):
    """This includes methods of a mixin, whose own examples use the private class."""
    runner, finder = doctest.DocTestRunner(), doctest.DocTestFinder(recurse=False, exclude_empty=True)
    for name, member in inspect.getmembers(cls):
        if name.startswith("_"):
            continue
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        names = {exported: getattr(tastypy_fast, exported) for exported in tastypy_fast.__all__}
        names |= {"path": str(folder / "store"), "os": os}
        for example in finder.find(member, name, module=False, globs=names):
            runner.run(example)
    assert runner.failures == 0
    assert runner.tries >= 50


def test_package_has_a_py_typed_marker_and_stubs():
    assert (PACKAGE / "py.typed").exists()
    stubs = {".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.pyi")}
    # The type parameters have one, too, because Python before 3.13 does not know their defaults.
    assert stubs == {*COMPILED, "_type_parameters"}
