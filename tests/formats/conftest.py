"""Fixtures for the tests of export and import."""

from __future__ import annotations

import pytest

from tests.support.stores import CLASSES


@pytest.fixture(params=CLASSES)
def cls(request):
    return CLASSES[request.param]


@pytest.fixture(params=["pod", "shared_tracker"])
def either(request):
    """One class, for tests with many cases whose result does not depend on the class."""
    return CLASSES[request.param]
