"""Paths as callers give them: invalid ones are refused, ``~`` is expanded, no target lies inside its source."""

from __future__ import annotations

import errno
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tastypy_fast import (
    POD,
    NotAStoreError,
    SharedPOD,
    StorageError,
    StorePathError,
    Tracker,
    maintenance,
)
from tastypy_fast import _paths as paths
from tests.support.command import ENVIRONMENT, refused, run
from tests.support.stores import CLASSES, value_for

USER = "no_such_user_anywhere"
# Strings that the system would take as another path than the caller meant, or as none.
NO_PATHS = {
    "empty": ("", "is empty"),
    "empty bytes": (b"", "is empty"),
    "null byte": ("a\0b", "null byte"),
    "null byte in bytes": (b"\0", "null byte"),
    "surrogate": ("a\ud800", "encoding of file names"),
    "unknown user": (f"~{USER}/store", f"~{USER}"),
    "unknown user in bytes": (f"~{USER}".encode(), f"./~{USER}"),
}
NO_TYPES = [None, 5, 1.5, True, ["x"], object()]


class Linked(os.PathLike):
    """A path class of the user."""

    def __init__(self, text):
        self._text = text

    def __fspath__(self):
        return self._text


@pytest.fixture(params=CLASSES)
def cls(request):
    return CLASSES[request.param]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a store in it that ``rm "" --done`` would find."""
    monkeypatch.chdir(tmp_path)
    with Tracker(".", init={"a": {"_done": True}, "b": {}}):
        pass
    return tmp_path


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def everything(folder):
    return {str(file.relative_to(folder)): file.read_bytes() if file.is_file() else None
            for file in sorted(folder.rglob("*")) if file.name != "lock.mdb"}


def uses(cls, path, other):
    """Every use of a path in Python. ``other`` is a folder with a store, its lines, and its files."""
    store = cls(other / "store")
    return {
        "open": lambda: cls(path),
        "open with init": lambda: cls(path, init={"a": value_for(cls, 1)}),
        "import_json into": lambda: cls.import_json(other / "files", path),
        "import_json from": lambda: cls.import_json(path, other / "new"),
        "export_json": lambda: store.export_json(path),
        "export_jsonl": lambda: store.export_jsonl(path),
        "import_jsonl": lambda: store.import_jsonl(path),
        "copy": lambda: maintenance.copy(path, other / "new"),
        "copy to": lambda: maintenance.copy(other / "store", path),
        "repair": lambda: maintenance.repair(path, other / "new"),
        "repair into": lambda: maintenance.repair(other / "other", path),
        "verify": lambda: maintenance.verify(path),
        "compact": lambda: maintenance.compact(path),
    }


@pytest.fixture
def other(cls, tmp_path):
    folder = tmp_path / "other folder"
    for name in ("store", "other"):
        with cls(folder / name, init={"a": value_for(cls, 1)}) as store:
            store.sync()
    with cls(folder / "store") as store:
        store.export_json(folder / "files")
        store.export_jsonl(folder / "lines")
    return folder


@pytest.mark.parametrize("name", NO_PATHS)
def test_strings_that_are_not_paths_are_refused_everywhere(cls, here, other, name):
    wrong, match = NO_PATHS[name]
    before = everything(here)
    for use, work in uses(cls, wrong, other).items():
        with pytest.raises(StorePathError, match=match) as caught:
            work()
        assert isinstance(caught.value, ValueError), use
        assert isinstance(caught.value, NotADirectoryError), use
    for work in uses(cls, Linked(wrong), other).values():
        with pytest.raises(StorePathError, match=match):
            work()
    cls(other / "store").close()
    assert everything(here) == before


def test_path_of_another_type_is_a_type_error_that_names_it(cls, here, other):
    before = everything(here)
    for wrong in NO_TYPES:
        for use, work in uses(cls, wrong, other).items():
            if use == "import_jsonl" and wrong == ["x"]:  # These are lines.
                continue
            with pytest.raises(TypeError, match=rf"\b{type(wrong).__name__}\b"):
                work()
    assert everything(here) == before


@pytest.mark.parametrize("mode", ["w", "r"])
def test_nothing_is_opened_by_an_empty_path(private_class, here, mode):
    with pytest.raises(StorePathError, match=r'write "\." for the current folder'):
        private_class("", mode=mode)
    with Tracker(".", mode=mode) as named, Tracker(Path(""), mode=mode) as same:
        assert named.path == same.path == str(here)


def test_relative_path_without_a_current_folder_raises_an_error_of_the_package(cls, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    try:
        for work in (lambda: cls("store"), lambda: maintenance.verify("store")):
            with pytest.raises(StorePathError, match="absolute path"):
                work()
    finally:
        os.chdir(tmp_path)


# ~


@pytest.mark.parametrize("kind", [str, os.fsencode, Path, Linked])
def test_home_is_expanded_by_the_classes(cls, home, kind):
    with cls(kind("~/some/store"), init={"a": value_for(cls, 1)}) as store:
        assert store.path == str(home / "some/store")
        with cls("../home/some/store") as same:
            assert same.keys() == ["a"]
    assert os.listdir() == []


def test_home_itself_is_a_path(cls, home):
    with cls("~") as store:
        assert store.path == str(home)
    assert os.listdir() == []


def test_home_of_a_user_is_expanded(cls, home, monkeypatch):
    class Passwords:
        @staticmethod
        def getpwnam(name):
            if name != "ada":
                raise KeyError(name)
            return type("Entry", (), {"pw_dir": str(home / "ada")})

    monkeypatch.setitem(sys.modules, "pwd", Passwords)
    with cls("~ada/store") as store:
        assert store.path == str(home / "ada/store")
    with pytest.raises(StorePathError, match=r"~bob, .*write \./~bob"):
        cls("~bob/store")
    with cls("./~bob/store") as store:
        assert store.path == os.path.abspath("~bob/store")


def test_home_is_expanded_by_import_export_and_maintenance(cls, home):
    with cls("~/store", init={"a": value_for(cls, 1)}) as store:
        store.export_json("~/files")
        store.export_jsonl("~/lines.jsonl.gz")
        assert store.import_jsonl("~/lines.jsonl.gz") == 1
        cls.import_json("~/files", "~/new").close()
    maintenance.copy("~/store", "~/copy")
    maintenance.compact("~/copy")
    assert maintenance.verify("~/copy") == []
    maintenance.repair("~/copy", "~/repaired")
    assert sorted(os.listdir(home)) == ["copy", "files", "lines.jsonl.gz", "new", "repaired", "store"]
    assert os.listdir() == []


def test_path_of_a_pickled_instance_does_not_depend_on_home(home, monkeypatch):
    with SharedPOD("~/store", init={"a": 1}) as store:
        monkeypatch.setenv("HOME", "/nowhere")
        with pickle.loads(pickle.dumps(store)) as other:
            assert other.path == store.path == str(home / "store")


def test_forked_child_opens_the_same_path(cls, home, run_python):
    text = run_python(f"from tastypy_fast import {cls.__name__} as cls\nprint(cls('~/store').path)")
    assert text == f"{home / 'store'}\n"


# Targets


def targets(store):
    """Paths inside a store: new, deep, an empty folder, through a link, and past a dot-dot."""
    (store.parent / "link").symlink_to(store / "linked")
    (store.parent / "same").symlink_to(store)
    (store / "empty").mkdir(exist_ok=True)
    return [store / "inner", store / "a" / "b", store / "empty", store / "workers", store.parent / "link",
            store.parent / "same" / "inner", f"{store.parent}/same/../{store.name}/inner", f"{store}/inner/"]


def test_target_inside_its_source_is_refused(cls, path):
    with cls(path, init={"a": value_for(cls, 1)}) as store:
        store.sync()
        inside = targets(path)
        (path / "x.jsonl").touch()
        before = everything(path.parent)
        for target in inside:
            for work in (maintenance.copy, maintenance.repair):
                with pytest.raises(StorePathError, match=f"inside the store that is .*, {re.escape(str(path))}; "):
                    work(path, target)
            for work in (store.export_json, store.export_jsonl):
                with pytest.raises(StorePathError, match="inside the store that is exported"):
                    work(target)
        for target in (path, path.parent):
            for work in (maintenance.copy, maintenance.repair):
                with pytest.raises(NotAStoreError, match="not empty"):
                    work(path, target)
        assert everything(path.parent) == before
        # Another path that only begins with the same letters.
        maintenance.copy(path, f"{path}.inner")
        store.export_json(f"{path}-inner")


def test_store_is_not_imported_into_the_folder_of_the_files(cls, path, tmp_path):
    files = tmp_path / "files"
    with cls(path, init={"a": value_for(cls, 1)}) as store:
        store.export_json(files)
    before = everything(tmp_path)
    with pytest.raises(StorePathError, match="inside the folder that is imported"):
        cls.import_json(files, files / "store")
    assert everything(tmp_path) == before


def test_folders_are_compared_by_identity(tmp_path, monkeypatch):
    (tmp_path / "Store").mkdir()
    (tmp_path / "other").mkdir()
    names = {"store": "Store", "STORE": "Store"}
    real = os.path.samefile
    monkeypatch.setattr(os.path, "samefile", lambda one, two: real(*(
        os.path.join(os.path.dirname(name), names.get(os.path.basename(name), os.path.basename(name)))
        for name in (one, two))))
    with pytest.raises(StorePathError):
        paths.refuse_inside(str(tmp_path / "STORE" / "inner"), str(tmp_path / "Store"), "the store")
    paths.refuse_inside(str(tmp_path / "other" / "inner"), str(tmp_path / "Store"), "the store")
    paths.refuse_inside("/", str(tmp_path), "the store")


def test_inaccessible_target_raises_an_error_of_the_package(path, tmp_path, monkeypatch):
    def refuse(name):
        raise PermissionError(errno.EACCES, "Permission denied", name)

    POD(path).close()
    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(StorageError, match="nothing was written"):
        maintenance.copy(path, tmp_path / "target")


# The command

# {} stands for the path.
COMMANDS = [
    "abort {} a", "abort {} --todo", "add {} a", "add {} a --create", "compact {}", "copy {} new", "copy store {}",
    "done {} b", "done {} --todo", "export {} -", "export store {}", "get {} a", "import {} new",
    "import lines.jsonl {}", "import - {} --tracker", "ls {}", "repair {} new", "repair store {}", "reset {} --done",
    "rm {} a", "rm {} --done", "set {} a 1", "set {} a 1 --create", "status {}", "verify {}", "watch {}",
    "rm store --file {}",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_refuses_an_empty_path(here, command):
    with Tracker("store", init={"a": {"_done": True}}) as tracker:
        tracker.export_jsonl("lines.jsonl")
    before = everything(here)
    assert "the path is empty" in refused(*("" if word == "{}" else word for word in command.split()), code=2)
    assert everything(here) == before


def test_command_names_other_invalid_paths(here):
    assert f"./~{USER}" in refused("status", f"~{USER}/store", code=2)
    run("status", ".")


def test_command_expands_home(home):
    # A shell expands it before, but not in quotes, and not after --file=.
    def at_home(*arguments):
        return run(*arguments, HOME=str(home))

    at_home("set", "~/store", "a", "1", "--create")
    (home / "keys").write_text("a\n")
    assert at_home("get", "~/store", "--file=~/keys") == "a\t1\n"
    assert at_home("ls", "~/store") == "a\n"
    at_home("export", "~/store", "~/lines.jsonl")
    at_home("import", "~/lines.jsonl", "~/new")
    at_home("copy", "~/store", "~/copy")
    assert str(home / "store") in at_home("status", "~/store")
    assert at_home("verify", "~/copy") == f"{home / 'copy'} is sound\n"
    assert sorted(os.listdir(home)) == ["copy", "keys", "lines.jsonl", "new", "store"]
    assert os.listdir() == []


def test_command_refuses_a_target_inside_the_store(path):
    POD(path, init={"a": 1}).close()
    before = everything(path.parent)
    for command, name in ("copy", "inner"), ("repair", "inner"), ("export", "inner.jsonl"):
        assert "inside the store" in refused(command, path, path / name, code=3)
    assert everything(path.parent) == before


def test_demo_refuses_an_empty_path(here):
    done = subprocess.run([sys.executable, "-m", "tastypy_fast.demo", str(here), "--store", ""], env=ENVIRONMENT,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "the path is empty" in done.stderr
