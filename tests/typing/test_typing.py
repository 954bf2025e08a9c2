"""The errors of type checkers in user code: none in ``consumer.py``, and every mistake in ``mistakes.py``."""

from __future__ import annotations

import importlib.util
import inspect
import json
import pickle
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import tastypy_fast
from tastypy_fast import PersistentOrderedDict, ProgressTracker, SharedPersistentOrderedDict, SharedProgressTracker
from tastypy_fast.types import StoreLike, TrackerLike

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
CONSUMER, MISTAKES = FOLDER / "consumer.py", FOLDER / "mistakes.py"
CLASSES = [PersistentOrderedDict, ProgressTracker, SharedPersistentOrderedDict, SharedProgressTracker]


def run(*command):
    command = [sys.executable, "-m", *command, str(CONSUMER), str(MISTAKES)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=280)


def mypy_errors(folder):
    """The file and line of each error of mypy, with its text."""
    done = run("mypy", "--strict", "--config-file=", "--no-color-output", f"--cache-dir={folder / 'cache'}")
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(r"^(.*?):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    return {(Path(file).name, int(line)): text for file, line, text in found}


def pyright_errors(folder):
    done = run("pyright", "--outputjson", "--pythonpath", sys.executable)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 2, report
    return {(Path(error["file"]).name, error["range"]["start"]["line"] + 1): error["message"]
            for error in report["generalDiagnostics"] if error["severity"] == "error"}


def mistakes():
    lines = MISTAKES.read_text().splitlines()
    return {(MISTAKES.name, number) for number, line in enumerate(lines, 1) if line.endswith("  # error")}


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_type_checker_finds_the_mistakes_and_nothing_else(checker, tmp_path):
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed; it comes with the extra lint")
    found = mypy_errors(tmp_path) if checker == "mypy" else pyright_errors(tmp_path)
    assert {place: text for place, text in found.items() if place not in mistakes()} == {}
    assert mistakes() - found.keys() == set()


@pytest.mark.parametrize("cls", CLASSES)
def test_consumer_code_uses_every_public_method(cls):
    used = set(re.findall(r"\.(\w+)\b", CONSUMER.read_text()))
    assert {name for name in dir(cls) if not name.startswith("_")} - used == set()


@pytest.mark.parametrize("cls", CLASSES)
def test_signatures_show_no_private_name(cls):
    for name, member in inspect.getmembers(cls):
        if name.startswith("_") or not callable(member):
            continue
        for parameter in inspect.signature(member).parameters.values():
            assert not parameter.name.startswith("_"), name
            assert "object at 0x" not in str(parameter), name
            assert not re.search(r"(?<![\w.])_\w", str(parameter)), name


@pytest.mark.parametrize("cls", [SharedPersistentOrderedDict, SharedProgressTracker])
def test_examples_of_shared_classes_use_shared_classes(cls):
    for name, member in inspect.getmembers(cls):
        text = inspect.getdoc(member) or ""
        if not name.startswith("_") and ">>>" in text:
            assert "Shared" in text[text.index(">>>"):], name
    methods = {name for name, member in inspect.getmembers(cls) if not name.startswith("_") and callable(member)}
    without = {name for name in methods if ">>>" not in inspect.getdoc(getattr(cls, name))}
    assert without == set()


@pytest.mark.parametrize("cls", CLASSES)
def test_classes_accept_type_parameters_at_run_time(cls, tmp_path):
    made = cls[str] if cls in (ProgressTracker, SharedProgressTracker) else cls[str, int]
    with made(tmp_path / "store") as store:
        assert type(store) is cls
        assert isinstance(store, StoreLike)
        assert isinstance(store, TrackerLike) == (cls in (ProgressTracker, SharedProgressTracker))
    with pytest.raises(TypeError):
        cls[str, int, int]
    assert not isinstance({}, StoreLike)


@pytest.mark.parametrize("cls", [*CLASSES, StoreLike, TrackerLike])
def test_annotations_can_be_evaluated(cls):
    typing.get_type_hints(cls)
    for name, member in inspect.getmembers(cls):
        member = getattr(member, "fget", member)
        if not name.startswith("_") and callable(member):
            typing.get_type_hints(member)


@pytest.mark.parametrize("cls", [SharedPersistentOrderedDict, SharedProgressTracker])
def test_shared_store_with_types_is_pickled(cls, tmp_path):
    class Local:
        """A type that cannot be pickled."""

    made = cls[str] if cls is SharedProgressTracker else cls[str, Local]
    with made(tmp_path / "store") as store, pickle.loads(pickle.dumps(store)) as other:
        store["a"] = {}
        assert "a" in other


@pytest.mark.parametrize("protocol", [StoreLike, TrackerLike])
def test_protocols_have_every_method_that_both_kinds_have(protocol):
    private, shared = {StoreLike: CLASSES[::2], TrackerLike: CLASSES[1::2]}[protocol]
    both = {name for name in dir(private) if not name.startswith("_")} & set(dir(shared))
    # A class is annotated with type[...], and not with a protocol.
    assert both - set(dir(protocol)) == {"import_json"}
    assert {name for name in dir(protocol) if not name.startswith("_")} <= both


def test_public_types_are_exported():
    assert {"Claim"} <= set(tastypy_fast.__all__)
