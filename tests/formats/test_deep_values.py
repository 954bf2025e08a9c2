"""What can be stored can be read, synced, exported and imported from any depth of calls."""

from __future__ import annotations

import sys

import pytest

from tastypy_fast import UnstorableValueError
from tastypy_fast._core.json_fallback import MAX_DEPTH
from tastypy_fast._formats.json_text import compact_json, spaced_json

pytestmark = pytest.mark.all_classes


def nested(depth, innermost):
    """A value with lists and dicts in turn."""
    value = innermost
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def innermost_of(value):
    depth = 0
    while isinstance(value, (list, dict)):
        value = value[0] if isinstance(value, list) else value["a"]
        depth += 1
    return depth, value


def deepest(kit, store, innermost):
    """Store the deepest value that this function can store, and return its depth."""
    low, high = 100, 20_000
    while low < high - 1:
        middle = (low + high) // 2
        try:
            store["k"] = kit.value(nested(middle, innermost))
            low = middle
        except UnstorableValueError:
            high = middle
    return low


def called_deeply(function):
    """Call a function with little room left on the stack."""

    def descend(levels):
        return function() if levels == 0 else descend(levels - 1)

    depth, frame = 0, sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    return descend(sys.getrecursionlimit() - depth - 100)


def test_what_one_program_can_store_all_programs_can_read(kit, store):
    """With a higher limit of recursion, deeper values were stored. Readers took them for damage."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(50_000)
    try:
        depth = deepest(kit, store, 1)
    finally:
        sys.setrecursionlimit(limit)
    store.sync()
    assert innermost_of(kit.plain(store["k"])) == (depth, 1)
    assert store.export_jsonl(kit.folder / "k.jsonl") == 1
    assert MAX_DEPTH - 2 <= depth <= MAX_DEPTH
    with pytest.raises(UnstorableValueError, match=f"values nest up to {MAX_DEPTH} levels"):
        store["k"] = kit.value(nested(MAX_DEPTH + 1, 1))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="the limit of recursion is for functions of Python only")
def test_limit_of_recursion_that_is_too_low_is_no_damage(kit, store):
    """Readers called the store damaged, and an export started threads until there was no memory for more."""
    store["k"] = kit.value(nested(480, 1))
    store.close()
    store = kit.open()
    limit = sys.getrecursionlimit()
    value = kit.value(nested(480, 1))
    said = r"the recursion limit of Python is 400, .*setrecursionlimit\(1000\)"
    sys.setrecursionlimit(400)
    try:
        for use in (lambda: store["k"], store.values, lambda: store.export_jsonl(kit.folder / "k.jsonl"),
                    lambda: spaced_json(value), lambda: compact_json(value)):
            with pytest.raises(RuntimeError, match=said):
                use()
        with pytest.raises(UnstorableValueError, match=said):
            store["j"] = value
    finally:
        sys.setrecursionlimit(limit)
    assert innermost_of(kit.plain(store["k"]))[1] == 1
    store["j"] = value


@pytest.mark.parametrize("innermost", [1, 0.5, float("inf"), "\ud800", 2**80], ids=ascii)
def test_deepest_value_is_exported_and_imported(kit, store, innermost):
    depth = deepest(kit, store, innermost)
    expected = innermost_of(kit.plain(store["k"]))
    assert expected == (depth, innermost)
    store.sync()

    def use():
        assert store.export_jsonl(kit.folder / "k.jsonl") == store.export_json(kit.folder / "k") == 1
        copy = kit.open("copy")
        assert copy.import_jsonl(kit.folder / "k.jsonl") == 1
        imported = kit.cls.import_json(kit.folder / "k", kit.folder / "imported")
        for other in (store, copy, imported):
            assert innermost_of(kit.plain(other["k"])) == expected
            assert innermost_of(kit.plain(other.values()[0])) == expected
        imported.close()

    called_deeply(use)


def test_watched_value_is_synced_from_any_depth(private_kit):
    store = private_kit.open()
    depth = deepest(private_kit, store, 1)
    value = store["k"]
    called_deeply(store.sync)
    called_deeply(store.items)
    assert store.dirty() == set()
    assert innermost_of(private_kit.plain(value)) == (depth, 1)


def test_int_of_many_digits_is_exported_from_any_depth(kit, store):
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        store["k"] = kit.value(nested(400, 10**5000))
        store.sync()
    finally:
        sys.set_int_max_str_digits(before)
    for name in ("k.jsonl", "k"):
        getattr(store, "export_jsonl" if name.endswith("l") else "export_json")(kit.folder / name)
    for path in (kit.folder / "k.jsonl", kit.folder / "k" / "0.json"):
        text = path.read_text()
        assert text.count("[") + text.count("{") >= 400
        assert "1" + "0" * 5000 in text


def test_deepest_key_is_exported_and_imported(kit, store):
    key = ()
    for _ in range(499):
        key = (key,)
    store[key] = kit.value(1)

    def use():
        store.export_jsonl(kit.folder / "k.jsonl")
        store.export_json(kit.folder / "k")
        copy = kit.open("copy")
        copy.import_jsonl(kit.folder / "k.jsonl")
        with kit.cls.import_json(kit.folder / "k", kit.folder / "imported") as imported:
            assert key in copy
            assert key in imported

    called_deeply(use)


def test_value_that_contains_itself_is_refused(kit, store):
    value = []
    value.append(value)
    with pytest.raises(UnstorableValueError, match="nested too deeply, or contains itself"):
        store["k"] = kit.value(value)
