"""Define the names that examples in docstrings use: an unused path, and the public names."""

import pytest

import tastypy_fast

# docs/conf.py needs Sphinx. tests/typing is for type checkers, and collecting its examples would run it.
collect_ignore = ["docs/conf.py", "tests/typing"]

# Asserts in the support modules show their values, as asserts in tests do.
pytest.register_assert_rewrite("tests.support")


@pytest.fixture(autouse=True)
def _names_for_examples(request, doctest_namespace, tmp_path, monkeypatch):
    if not isinstance(request.node, pytest.DoctestItem):
        return
    monkeypatch.chdir(tmp_path)
    for name in tastypy_fast.__all__:
        doctest_namespace[name] = getattr(tastypy_fast, name)
    doctest_namespace["path"] = str(tmp_path / "store")
