"""The number of a boot."""

from __future__ import annotations

import builtins
import sys

import pytest

from tastypy_fast._lmdb.boot_id import boot_id


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="other systems have none")
def test_a_boot_has_one_number(run_python):
    number = boot_id()
    assert len(number) == 16
    assert number == boot_id()
    printed = run_python("from tastypy_fast._lmdb.boot_id import boot_id; print(boot_id().hex())")
    assert printed.split()[-1] == number.hex()


def test_none_where_the_system_has_none(monkeypatch):
    def refuse(*arguments, **keywords):
        raise FileNotFoundError

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(builtins, "open", refuse)
    assert boot_id() is None
