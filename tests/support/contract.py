"""Data that the tests of all four classes share."""

from __future__ import annotations

import operator

# As a dict of one small store. The tests say which part of it is on disk.
ABC = {"a": 1, "b": 2, "c": 3}


def numbered(kit, count, synced, **options):
    store = kit.open(init=kit.pairs({number: number for number in range(count)}), **options)
    if synced:
        store.sync()
    return store


def freeing(cls, freed):
    """A subclass that calls a function when an instance is freed."""

    class Freeing(cls):
        def __del__(self):
            freed(self)

    return Freeing


def assert_freed_at_the_end(cls, path, count, make):
    """Check that an iterator frees its store at its end, as CPython's ``test_free_after_iterating`` does for dicts.

    ``make`` is the name of the method that makes the iterator, or a function of the store.
    """
    freed = []

    def use_iterator(store):
        freed.append(next(iterator, None))

    call = operator.methodcaller(make) if isinstance(make, str) else make
    iterator = call(freeing(cls, use_iterator)(path, init={key: {} for key in range(count)}))
    for _ in iterator:
        assert not freed
    assert freed == [None]
    assert next(iterator, None) is None
    # The options differ, so the store opens only if the freed instance was closed.
    with cls(path, gzipped=True) as again:
        assert again.keys() == list(range(count))
