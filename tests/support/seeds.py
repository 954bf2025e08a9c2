"""Helpers for the examples of tastypy's documentation."""

from __future__ import annotations

import multiprocessing

import pytest

from tests.support.children import run

start_methods = pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())


def output_of(tmp_path, program, method):
    """The output of a program whose children were started with this method."""
    path = tmp_path / "example.py"
    path.write_text(program.replace("METHOD", repr(method)))
    status, output, errors = run(path)
    assert status == 0, errors
    return output
