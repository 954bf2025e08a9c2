"""Data that the tests of all four classes share."""

from __future__ import annotations

# As a dict of one small store. The tests say which part of it is on disk.
ABC = {"a": 1, "b": 2, "c": 3}


def numbered(kit, count, synced, **options):
    store = kit.open(init=kit.pairs({number: number for number in range(count)}), **options)
    if synced:
        store.sync()
    return store
