"""tastypy-fast copy, compact, verify and repair."""

from __future__ import annotations

import json
import signal
import subprocess

import lmdb
import pytest

from tastypy_fast import POD
from tastypy_fast.cli import app
from tests.support.children import Child
from tests.support.command import COMMAND, ENVIRONMENT, hold_private, lines, refused, run

# copy, compact, verify, repair


@pytest.fixture
def maintenance():
    return pytest.importorskip("tastypy_fast.maintenance")


def test_copy_compact_and_verify(maintenance, tasks, tmp_path):
    assert str(tmp_path / "copy") in run("copy", tasks, tmp_path / "copy")
    assert run("ls", tmp_path / "copy", "--json") == run("ls", tasks, "--json")
    assert "not empty" in refused("copy", tasks, tmp_path / "copy", code=3)
    with POD(tmp_path / "large") as pod:
        pod.update((number, "x" * 1000) for number in range(2000))
        pod.sync()
        pod.clear()
    given_back = json.loads(run("compact", tmp_path / "large", "--json"))
    assert given_back["given_back"] == given_back["before"] - given_back["after"] > 1_000_000
    assert run("compact", tmp_path / "large").startswith("freed ")
    assert run("verify", tmp_path / "large") == f"{tmp_path / 'large'} is sound\n"
    assert json.loads(run("verify", tasks, "--json")) == {"sound": True, "faults": []}
    with Child(hold_private, tasks) as child:
        child.pipe.recv()
        assert str(child.pid) in refused("compact", tasks, code=3)


def test_verify_and_repair_of_a_damaged_store(maintenance, tasks, tmp_path):
    data = tasks / "data.mdb"
    data.write_bytes(data.read_bytes().replace(b'"error"', b"\xff" * 7))
    before = data.read_bytes()
    out, error = run("verify", tasks, code=1)
    assert "fault" in out.splitlines()[-1]
    assert error == ""
    found = json.loads(run("verify", tasks, "--json", code=1)[0])
    assert not found["sound"]
    assert found["faults"]
    out, _ = run("repair", tasks, tmp_path / "new", "--json", code=1)
    result = json.loads(out)
    assert result["lost"]
    assert len(lines("ls", tmp_path / "new")) == result["kept"]
    assert "sound" in run("verify", tmp_path / "new")
    assert "what was lost is listed above" in run("repair", tasks, tmp_path / "other", code=1)[0]
    assert data.read_bytes() == before


def test_verify_refuses_what_is_no_store(maintenance, tasks, tmp_path, capsys):
    """It said that a folder without a store has a fault which repair mends."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "note.txt").touch()
    with lmdb.open(str(tmp_path / "lmdb"), max_dbs=2) as db:
        db.open_db(b"other")
    for name in ("file", "empty", "foreign", "lmdb", "missing"):
        codes = [app.run([command, str(tmp_path / name)]) for command in ("status", "verify")]
        out, error = capsys.readouterr()
        assert (codes, out) == ([3, 3], "")
        first, second = error.splitlines()
        assert first == second
    # The rest of a store is damaged.
    (tasks / "data.mdb").unlink()
    assert app.run(["verify", str(tasks)]) == 1
    assert "data.mdb is missing" in capsys.readouterr().out


# Ctrl-C


def test_ctrl_c_exits_with_130_and_prints_no_traceback(tasks):
    with subprocess.Popen([*COMMAND, "watch", str(tasks), "--interval", "0.1", "--json"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == ""
