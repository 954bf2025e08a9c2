"""The documentation site builds without a warning, and its reference is complete. (Needs the extra ``docs``.)"""

from __future__ import annotations

import html
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tastypy_fast
from tastypy_fast import exceptions, maintenance

pytest.importorskip("sphinx", minversion="8.2")
pytest.importorskip("furo")
pytest.importorskip("myst_parser")
pytest.importorskip("sphinx_click")

ROOT = Path(__file__).parents[2]
CLASSES = [tastypy_fast.PersistentOrderedDict, tastypy_fast.ProgressTracker, tastypy_fast.SharedPersistentOrderedDict,
           tastypy_fast.SharedProgressTracker]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages."""
    folder = tmp_path_factory.mktemp("site")
    search = [str(Path(tastypy_fast.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html", "-d",
               str(folder / "doctrees"), str(ROOT / "docs"), str(folder / "html")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(search)}, capture_output=True,
                          encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def anchors(page):
    return set(re.findall(r'id="([^"]+)"', page.read_text(encoding="utf-8")))


def test_reference_has_every_public_member_of_the_classes(site):
    found = set().union(*(anchors(page) for page in (site / "reference").glob("*.html")))
    wanted = {f"tastypy_fast.{cls.__name__}.{name}" for cls in CLASSES for name, _ in inspect.getmembers(cls)
              if not name.startswith("_")}
    assert len(wanted) > 200
    assert wanted - found == set()


def test_reference_has_every_exception_and_function(site):
    found = anchors(site / "reference" / "exceptions.html") | anchors(site / "reference" / "maintenance.html")
    assert len(exceptions.__all__) >= 21
    assert {f"tastypy_fast.exceptions.{name}" for name in exceptions.__all__} <= found
    assert {f"tastypy_fast.maintenance.{name}" for name in maintenance.__all__} <= found


def test_compiled_method_has_the_signature_of_its_stub(site):
    text = html.unescape(re.sub(r"<[^>]+>", "", (site / "reference" / "tracker.html").read_text(encoding="utf-8")))
    for method, signature in {"mark_not_done": r"key: \w+", "hold": ""}.items():
        assert re.search(rf"\b{method}\({signature}\)\s*→ None", text), method


def test_reference_has_every_command(site):
    command = [sys.executable, "-m", "tastypy_fast", "--help"]
    shown = subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout
    commands = re.findall(r"^  (\w+) ", re.search(r"Commands:\n(.*?)\n\n", shown, re.S)[1], re.M)
    assert len(commands) >= 16
    assert {f"tastypy-fast-{name}" for name in commands} <= anchors(site / "reference" / "command.html")
