"""CPython's own tests of a mapping, run on a store."""

from __future__ import annotations

import itertools

import pytest

from tastypy_fast import PersistentOrderedDict, SharedPersistentOrderedDict

# Some builds of Python do not include its test package.
mapping_tests = pytest.importorskip("test.mapping_tests")


class TestPersistentOrderedDict(mapping_tests.BasicTestMappingProtocol):
    """Only the source of the data is overridden."""

    cls = PersistentOrderedDict

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder, self.numbers = tmp_path, itertools.count()
        self.stores = []
        yield
        for store in self.stores:
            store._check()
            store.close()

    def _reference(self):
        # The base class has a tuple among these, which becomes a list in JSON.
        return {"1": "2", "key1": "value1", "key2": 3}

    def type2test(self):
        self.stores.append(self.cls(self.folder / str(next(self.numbers)), sync_at=2))
        return self.stores[-1]


class TestSharedPersistentOrderedDict(TestPersistentOrderedDict):
    cls = SharedPersistentOrderedDict
