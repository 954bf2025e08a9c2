"""The engine ignores the environment, and recognises files of another LMDB version."""

from __future__ import annotations

import os

import lmdb
import pytest

from tastypy_fast import (
    NewerFormatError,
)
from tests.support.children import run
from tests.support.files import contents

pytestmark = [pytest.mark.all_classes, pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]


def test_engine_ignores_environment_variables(any_class, path):
    program = """
        import sys, tastypy_fast
        with getattr(tastypy_fast, sys.argv[2])(sys.argv[1], init={"a": {"n": 1}}) as store:
            pass
    """
    environment = os.environ.get("LMDB_DEFAULT_LIB_VERSION")
    os.environ["LMDB_DEFAULT_LIB_VERSION"] = "1"
    try:
        assert run(program, path, any_class.__name__)[0] == 0
    finally:
        del os.environ["LMDB_DEFAULT_LIB_VERSION"]
        if environment is not None:
            os.environ["LMDB_DEFAULT_LIB_VERSION"] = environment
    assert contents(path, any_class) == {"a": 1}


@pytest.mark.parametrize("mode", ["w", "r"])
def test_store_of_another_lmdb_version_raises_newer_format_error(private_class, path, mode):
    path.mkdir()
    try:
        db = lmdb.open(str(path), max_dbs=8, lib_version=1)
    except lmdb.Error:
        pytest.skip("this py-lmdb has one engine only")
    with db.begin(write=True) as txn:
        for name in (b"meta", b"values", b"order"):
            db.open_db(name, txn=txn)
    db.close()
    before = (path / "data.mdb").read_bytes()
    with pytest.raises(NewerFormatError, match=r"version of LMDB.*not damaged"):
        private_class(path, mode=mode)
    assert (path / "data.mdb").read_bytes() == before
