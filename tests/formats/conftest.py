"""Fixtures for the tests of export and import."""

from __future__ import annotations

import pytest

from tests.support.stores import CLASSES


@pytest.fixture(params=CLASSES)
def cls(request):
    return CLASSES[request.param]


@pytest.fixture(params=["pod", "shared_tracker"])
def either(request):
    """For what does not depend on the class, where there are many cases."""
    return CLASSES[request.param]
