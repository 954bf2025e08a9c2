"""Helpers for the tests of export and import."""

from __future__ import annotations

import sys

LEFT = "*.tastypy_fast-*"


def pairs_of(store):
    """The items of a store, in order. repr() distinguishes values that are equal."""
    return repr(store.items())


def fresh_task(**data):
    return {"_done": False, "_aborted": False, "_tries": 0, **data}


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def write_folder(folder, files):
    """Files by name: bytes, or text."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


# Key, value, and the line that the original writes
LINES = [
    ("plain", 1, rb'"plain"' + b"\t1\n"),
    ("tab\tin it", "a\tb", rb'"tab\\tin it"' + b"\t" + rb'"a\tb"' + b"\n"),
    ("back\\slash", "\\", rb'"back\\\\slash"' + b"\t" + rb'"\\"' + b"\n"),
    ('"quoted"', {"a": [1, 2]}, rb'"\\"quoted\\""' + b'\t{"a": [1, 2]}\n'),
    ("line\nend\r", "\n", rb'"line\\nend\\r"' + b"\t" + rb'"\n"' + b"\n"),
    ("", None, b'""\tnull\n'),
    ("é", "é", rb'"\\u00e9"' + b"\t" + rb'"\u00e9"' + b"\n"),
    ("😀", "😀", rb'"\\ud83d\\ude00"' + b"\t" + rb'"\ud83d\ude00"' + b"\n"),
    ("\udc80", "\udc80", rb'"\\udc80"' + b"\t" + rb'"\udc80"' + b"\n"),
    ("\\t", "\\t", rb'"\\\\t"' + b"\t" + rb'"\\t"' + b"\n"),
    (7, True, b"7\ttrue\n"),
    (-(2**70), 2**70, b"-1180591620717411303424\t1180591620717411303424\n"),
    (("a\t", 1, ("b",)), [], rb'["a\\t", 1, ["b"]]' + b"\t[]\n"),
    ((), float("inf"), b"[]\tInfinity\n"),
]

GOOD = '{"key": %d, "value": {}}\n'


def same(one, other):
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return pairs_of(one) == pairs_of(other)
    finally:
        sys.set_int_max_str_digits(limit)
