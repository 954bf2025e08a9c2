"""tastypy-fast export and import."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess

import pytest

from tastypy_fast import POD, SharedPOD, Tracker
from tastypy_fast.cli import app
from tests.support.command import COMMAND, ENVIRONMENT, HOSTILE, lines, refused, run


@pytest.mark.parametrize("name", ["tasks.jsonl", "tasks.jsonl.gz", "tasks.jsonl.zst", "folder/"])
def test_export_and_import_select_the_format_by_file_name(tasks, tmp_path, name):
    target = f"{tmp_path}/{name}"
    assert run("export", tasks, target) == f"wrote 7 lines to {target}\n"
    assert "already" in run("export", tasks, target, code=3)[1] or name == "folder/"
    copy = tmp_path / "copy"
    assert run("import", target, copy) == f"read 7 lines into {copy}, a new tracker\n"
    assert run("ls", copy, "--json") == run("ls", tasks, "--json")


def test_export_and_import_through_a_pipe(path, tmp_path):
    with SharedPOD(path) as pod:
        pod.update((key, {"_done": True}) for key in HOSTILE)
        pod["large"] = "x" * 100_000
        text = run("export", path, "-")
    copy = tmp_path / "copy"
    assert json.loads(run("import", "-", copy, "--json", stdin=text)) == {
        "lines": len(HOSTILE) + 1, "kind": "dict", "new": True}
    assert run("export", copy, "-") == text
    assert json.loads(run("import", "-", copy, "--json", stdin=text))["new"] is False


@pytest.mark.parametrize("name", ["missing/x.jsonl", "missing/a/x.jsonl.gz", "missing/files/"])
def test_export_makes_no_folder_for_its_target(tasks, tmp_path, name):
    target = f"{tmp_path}/{name}"
    folder = os.path.dirname(target.rstrip("/"))
    assert f"there is no folder {folder!r} to write" in refused("export", tasks, target, code=4)
    assert not (tmp_path / "missing").exists()
    os.makedirs(folder)
    assert run("export", tasks, target) == f"wrote 7 lines to {target}\n"


def test_export_force_replaces_a_file_atomically(tasks, tmp_path, monkeypatch, capsys):
    target = tmp_path / "lines.jsonl"
    target.write_text("old")
    target.chmod(0o640)
    (tmp_path / "link.jsonl").symlink_to(target)
    assert "use --force to replace it" in refused("export", tasks, target, code=3)
    # A failed export leaves the old file.
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        assert app.run(["export", str(tasks), str(target), "--force"]) == 4
    assert target.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} <= {"lines.jsonl", "link.jsonl", "store"}
    assert app.run(["export", str(tasks), str(tmp_path / "link.jsonl"), "-f"]) == 0
    assert (tmp_path / "link.jsonl").is_symlink()
    assert target.read_text() == run("export", tasks, "-")
    assert target.stat().st_mode & 0o777 == 0o640
    assert {path.name for path in tmp_path.iterdir()} <= {"lines.jsonl", "link.jsonl", "store"}
    capsys.readouterr()
    assert app.run(["export", str(tasks), str(tasks / "data.mdb"), "--format", "jsonl", "--force"]) == 3
    assert app.run(["export", str(tasks), f"{tmp_path}/folder/", "--force"]) == 2
    assert app.run(["export", str(tasks), "/dev/full", "--format", "jsonl"]) == 4
    assert "'/dev/full'" in capsys.readouterr().err


@pytest.mark.parametrize(("target", "options", "code", "text"), [
    # It said that another process had made the folder, after it had written everything.
    ("there.jsonl", (), 3, "is the path of a folder"), ("there.jsonl", ("--force",), 3, "is the path of a folder"),
    # It wrote the files of the original tastypy.
    ("there", (), 2, "does not select a format"), ("store", ("-f",), 2, "does not select a format"),
    # It made a file, and called it by the name of a folder.
    ("new/", ("--format", "jsonl"), 2, "is the name of a folder"),
])
def test_export_to_the_name_of_a_folder(tasks, tmp_path, capsys, target, options, code, text):
    (tmp_path / "there").mkdir()
    (tmp_path / "there.jsonl").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert app.run(["export", str(tasks), f"{tmp_path}/{target}", *options]) == code
    out, error = capsys.readouterr()
    assert (out, text in error) == ("", True)
    assert sorted(tmp_path.rglob("*")) == before
    assert app.run(["export", str(tasks), str(tmp_path / "there"), "--format", "tastypy"]) == 0


@pytest.mark.parametrize("name", ["jsonl", "jsonl.gz", "jsonl.zst", "tastypy"])
def test_format_option_is_for_names_without_a_known_ending(tasks, tmp_path, name):
    target = tmp_path / "export"
    assert "give --format (jsonl, jsonl.gz, jsonl.zst, tastypy)" in refused("export", tasks, target, code=2)
    run("export", tasks, target, "--format", name)
    begin = b"" if target.is_dir() else target.read_bytes()[:4]
    assert begin == {"jsonl": b'{"ke', "jsonl.gz": b"\x1f\x8b\x08\0", "jsonl.zst": b"\x28\xb5\x2f\xfd", "tastypy": b""}[
        name]
    if name != "tastypy":  # a folder needs none
        assert "does not select a format" in refused("import", target, tmp_path / "copy", code=2)
        for _ in range(2):  # into a new store, and into an existing one
            run("import", target, tmp_path / "copy", "--format", name)
        assert run("export", tmp_path / "copy", "-") == run("export", tasks, "-")
        assert ("only be jsonl" in refused("export", tasks, "-", "--format", name, code=2)) if name != "jsonl" else (
            run("export", tasks, "-", "--format", name))


def test_import_names_the_damaged_line(path):
    POD(path).close()
    error = refused("import", "-", path, stdin='{"key": "a", "value": 1}\n{"key"', code=4)
    assert "line 2" in error
    assert "the one before it is in" in error
    assert lines("ls", path) == ["a"]
    assert "is a dict" in refused("import", "-", path, "--tracker", code=2)


TASK = '{"_done": false, "_aborted": false, "_tries": 0, "n": %d}'
GOOD = f'{{"key": "a", "value": {TASK % 1}}}\n'
# The input to import, the exit code, and the message.
FAILING = {
    "empty": ("", 2, "--tracker or --dict"),
    "only empty lines": ("\n  \n\n", 2, "--tracker or --dict"),
    "only a mark of the order of bytes": ("\ufeff", 2, "--tracker or --dict"),
    "damaged at once": ('{"key": "a", "val', 4, "line 1 of"),
    "damaged later": (GOOD + '{"key"', 4, "line 2 of .*; nothing was imported"),
    "damaged much later": ("".join(f'{{"key": {n}, "value": 1}}\n' for n in range(2500)) + "x", 4, "line 2501 of"),
    "no such line": (GOOD + "5\n", 4, "line 2 of .*; nothing was imported"),
    "no key": ('{"key": 1.5, "value": 1}\n', 4, "line 1 of .*; nothing was imported"),
    "no such value": (f'{{"key": 1, "value": 1}}\n{{"key": 2, "value": {"9" * 5000}}}', 4, "line 2 .*; nothing was"),
    "no task": (GOOD + '{"key": "b", "value": 1}\n', 4, "line 2 of .* not a task, .* --tracker or --dict; nothing was"),
    "half a task": (GOOD + '{"key": "b", "value": {"_done": true}}\n', 4, "line 2 of .* not a task"),
    "no such task": (GOOD + GOOD.replace("0,", '"x",').replace('"a"', '"b"'), 4, "line 2 of .*; nothing was imported"),
}


@pytest.mark.parametrize("case", FAILING)
@pytest.mark.parametrize("place", ["new", "an empty folder", "far/below"])
def test_failed_import_into_a_new_store_leaves_nothing(tmp_path, case, place):
    text, code, said = FAILING[case]
    (tmp_path / "lines.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "an empty folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for source in ("-", tmp_path / "lines.jsonl"):
        error = refused("import", source, tmp_path / place, stdin=text, code=code)
        assert re.search(said, error), error
        assert sorted(tmp_path.rglob("*")) == before
    # Importing the corrected input works.
    assert json.loads(run("import", "-", tmp_path / place, "--json", stdin=GOOD)) == {
        "lines": 1, "kind": "tracker", "new": True}


@pytest.mark.parametrize("name", ["lines.jsonl", "lines.jsonl.gz", "lines.jsonl.zst", "files/"])
def test_new_store_gets_the_kind_of_its_input(tmp_path, name):
    for kind, cls, init in (("tracker", Tracker, {"a": {}}), ("dict", POD, {"a": {}, "b": {"_done": True}})):
        with cls(tmp_path / kind, init=init) as store:
            store.sync()
        source, empty = f"{tmp_path}/{kind}-{name}", f"{tmp_path}/{kind}-empty-{name}"
        run("export", tmp_path / kind, source)
        copy = tmp_path / f"{kind}-copy"
        assert run("import", source, copy).endswith(f"a new {kind}\n")
        assert run("export", copy, "-") == run("export", tmp_path / kind, "-")
        run("rm", tmp_path / kind, "--match", "*")
        run("export", tmp_path / kind, empty)
        none = tmp_path / f"{kind}-none"
        assert "--tracker or --dict" in refused("import", empty, none, code=2)
        assert not none.exists()
        assert run("import", empty, none, f"--{kind}") == f"read 0 lines into {none}, a new {kind}\n"
        assert json.loads(run("status", none, "--json"))["kind"] == kind


def test_new_store_gets_the_kind_of_the_option(tmp_path):
    mixed = GOOD + '{"key": "b", "value": {"x": 1}}\n'
    for kind in ("tracker", "dict"):
        run("import", "-", tmp_path / kind, f"--{kind}", stdin=mixed)
        assert json.loads(run("status", tmp_path / kind, "--json"))["kind"] == kind
        error = refused("import", "-", tmp_path / "new", f"--{kind}", stdin=mixed + "x", code=4)
        assert "line 3" in error
        assert not (tmp_path / "new").exists()
    assert json.loads(run("get", tmp_path / "tracker", "b")) == {"_done": False, "_aborted": False, "_tries": 0, "x": 1}
    # The last one of the two options won.
    assert "cannot be combined" in refused("import", "-", tmp_path / "both", "--tracker", "--dict", stdin=GOOD, code=2)
    # The input begins with a byte order mark and empty lines.
    assert json.loads(run("import", "-", tmp_path / "marked", "--json", stdin="\ufeff" + GOOD))["kind"] == "tracker"
    assert json.loads(run("import", "-", tmp_path / "blank", "--json", stdin="\n" + GOOD))["kind"] == "tracker"


def test_failed_import_of_tastypy_files_leaves_nothing(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    for content, code, said in (
        (f'"a"\t{TASK % 1}\n"b"\t', 4, r"0\.json, line 2"), ("", 2, "--tracker or --dict"), ("x", 4, "line 1"),
        (f'"a"\t{TASK % 1}\n"a"\t{TASK % 2}\n', 4, "there already"),
        (f'"a"\t{TASK % 1}\n"b"\t{{}}\n', 4, r"0\.json, line 2: this value is not a task"),
    ):
        (files / "0.json").write_text(content)
        assert re.search(said, refused("import", files, tmp_path / "new", code=code))
        assert os.listdir(tmp_path) == ["files"]


def test_failed_import_into_an_existing_store_keeps_the_earlier_lines(path):
    POD(path, init={"z": 1}).close()
    for text in ("", "\n"):
        assert json.loads(run("import", "-", path, "--json", stdin=text)) == {"lines": 0, "kind": "dict", "new": False}
    error = refused("import", "-", path, stdin=GOOD + "x", code=4)
    assert "line 2 of" in error
    assert "the one before it is in the store" in error
    assert lines("ls", path) == ["z", "a"]


def test_interrupted_import_leaves_nothing(tmp_path):
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)):
        with subprocess.Popen([*COMMAND, "import", "-", tmp_path / "new"], stdin=subprocess.PIPE, env=ENVIRONMENT,
                              stderr=subprocess.PIPE) as process:
            process.stdin.write((GOOD * 1500).encode())
            process.stdin.flush()
            while not list(tmp_path.glob("new.tastypy_fast-*/new/data.mdb")):
                assert process.poll() is None
            process.send_signal(number)
            process.stdin.close()
            assert process.wait() == code
        assert not (tmp_path / "new").exists()
    run("import", "-", tmp_path / "new", stdin=GOOD)
    assert os.listdir(tmp_path) == ["new"]


def test_unstorable_value_creates_no_store(path):
    assert "too many digits" in refused("set", path, "a", "9" * 5000, "--create", code=4)
    assert "nests deeper" in refused("set", path, "[" * 600 + "]" * 600, "1", "--create", "--json-keys", code=4)
    assert not path.exists()


def test_opening_tastypy_files_names_the_import_command(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "0.json").write_text('"a"\t{"x": 1}\n')
    assert f"tastypy-fast import {tmp_path / 'old'}" in refused("status", tmp_path / "old", code=3)
    run("import", tmp_path / "old", tmp_path / "new")
    assert json.loads(run("get", tmp_path / "new", "a")) == {"x": 1}
