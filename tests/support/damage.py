"""Damage to the files of a store, and to the records in them."""

from __future__ import annotations

import random
import sqlite3
import struct
from contextlib import closing

import lmdb

PAGE = 4096
LONG_KEY = "long" * 200
NUMBER = struct.Struct("=q")


def content():
    """The contents of the stores to damage. For each value, no prefix of its JSON is JSON."""
    for number in range(400):
        yield f"key {number}", {"number": number, "text": "y" * (9000 if number % 100 == 7 else 50)}
    yield LONG_KEY, {"number": 400}


def files(path):
    # LMDB keeps its reader table in the lock file, which contains no data.
    return {entry.name: entry.read_bytes() for entry in path.iterdir() if entry.name != "lock.mdb"}


def overwrite(first, count, make):
    """Replace a number of pages."""

    def damage(data):
        return data[: first * PAGE] + make(count * PAGE) + data[(first + count) * PAGE :]

    return damage


def truncate(length):
    return lambda data: data[: int(length * len(data)) if isinstance(length, float) else length]


def sqlite_file(data):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("create table t (k, v)")
        connection.executemany("insert into t values (?, ?)", ((number, "x" * 1000) for number in range(100)))
        if hasattr(connection, "serialize"):
            return connection.serialize()
    return b"SQLite format 3\0".ljust(len(data), b"s")


def noise(size):
    return random.Random(size).randbytes(size)


WHOLE_FILE = {
    "zeros over the first page": overwrite(0, 1, bytes),
    "noise over the first page": overwrite(0, 1, noise),
    "zeros over the second page": overwrite(1, 1, bytes),
    "noise over the second page": overwrite(1, 1, noise),
    "zeros over the first pages": overwrite(0, 8, bytes),
    "noise over the first pages": overwrite(0, 8, noise),
    "zeros over all but the meta pages": lambda data: data[: 2 * PAGE].ljust(len(data), b"\0"),
    "noise over all but the meta pages": lambda data: data[: 2 * PAGE] + noise(len(data) - 2 * PAGE),
    "zeros all over": lambda data: bytes(len(data)),
    "truncated to 0": truncate(0),
    "truncated to 1": truncate(1),
    "truncated to 100": truncate(100),
    "truncated to a page": truncate(PAGE),
    "truncated to a page and a bit": truncate(PAGE + 152),
    "truncated to two pages": truncate(2 * PAGE),
    "truncated to half": truncate(0.5),
    "truncated to 90 %": truncate(0.9),
    "without the last page": truncate(-PAGE),
    "JSON": lambda data: b'{"a": 1}\n' * 5000,
    "text": lambda data: b"hello\n",
    "noise": lambda data: noise(len(data)),
    "SQLite": sqlite_file,
    "the meta pages swapped": lambda data: data[PAGE : 2 * PAGE] + data[:PAGE] + data[2 * PAGE :],
    "the first page missing": lambda data: data[PAGE:],
    "twice as large pages": lambda data: data[:40] + struct.pack("=I", 2 * PAGE) + data[44:],
}


class Inside:
    """The databases of a store, opened for writing damage into them."""

    def __init__(self, path):
        self.db = lmdb.open(str(path), max_dbs=8, map_size=1 << 28)
        with self.db.begin() as txn:
            names = [bytes(name) for name, _ in txn.cursor()]
        for name in (b"values", b"order", b"status", b"meta"):
            integers = name in (b"values", b"status")
            handle = self.db.open_db(name, create=False, integerkey=integers) if name in names else None
            setattr(self, name.decode(), handle)

    def __enter__(self):
        self.txn = self.db.begin(write=True)
        return self

    def __exit__(self, *exception):
        self.txn.commit()
        self.db.close()

    def index_of(self, number):
        """The key in the index that refers to a record."""
        return next(key for key, value in self.txn.cursor(self.order) if value == NUMBER.pack(number))

    def record(self, number):
        return self.txn.get(NUMBER.pack(number), db=self.values)

    def put(self, number, record):
        self.txn.put(NUMBER.pack(number), record, db=self.values)


def change_record(make):
    def damage(inside):
        inside.put(5, make(inside.record(5)))

    return damage


def change_meta(name, value):
    def damage(inside):
        if value is None:
            inside.txn.delete(name, db=inside.meta)
        else:
            inside.txn.put(name, value, db=inside.meta)

    return damage


def dangling_index(inside):
    inside.txn.delete(NUMBER.pack(5), db=inside.values)


def record_without_index(inside):
    inside.txn.delete(inside.index_of(5), db=inside.order)


def crossed_index(inside):
    inside.txn.put(inside.index_of(5), NUMBER.pack(6), db=inside.order)


def crossed_digest(inside):
    """The digest of the long key in the index refers to the record of another key."""
    inside.txn.put(inside.index_of(400), NUMBER.pack(6), db=inside.order)


def index_entry(value):
    return lambda inside: inside.txn.put(inside.index_of(5), value, db=inside.order)


def change_block(make):
    def damage(inside):
        block = inside.txn.get(NUMBER.pack(0), db=inside.status)
        changed = make(block)
        if changed is None:
            inside.txn.delete(NUMBER.pack(0), db=inside.status)
        else:
            inside.txn.put(NUMBER.pack(0), changed, db=inside.status)

    return damage


def set_status(slot, entry):
    """Write a status with the matching block header."""

    def make(block):
        head, entries = list(struct.unpack("=8H", block[:16])), list(struct.unpack("=500I", block[16:]))
        for sign, present in ((-1, entries[slot]), (1, entry)):
            if present & 1:
                head[0] += sign
                head[4] += sign * (not present & 6)
                assert not present & 6
                assert present >> 4 == 0
        entries[slot] = entry
        return struct.pack("=8H500I", *head, *entries)

    return change_block(make)


def drop(name):
    return lambda inside: inside.txn.drop(getattr(inside, name), delete=True)


# Each kind of damage, and the reads that must detect it if opening does not.
INSIDE = {
    "JSON that does not parse": (change_record(lambda raw: raw[:-1] + b"!"), {"get", "items", "values"}),
    "JSON that is not UTF-8": (change_record(lambda raw: raw[:-4] + b'\xff\xff"}'), {"get", "items", "values"}),
    "no payload": (change_record(lambda raw: raw[: raw.index(b"{")]), {"get", "items", "values"}),
    "a key that does not parse": (change_record(lambda raw: raw[:2] + b"\xff" + raw[3:]), {"get", "keys", "items"}),
    "unknown format of a record": (change_record(lambda raw: b"\x7f" + raw[1:]), {"get", "keys", "items", "values"}),
    "said to be compressed": (change_record(lambda raw: b"\x11" + raw[1:]), {"get", "items", "values"}),
    "an empty record": (change_record(lambda raw: b""), {"get", "keys", "items", "values"}),
    "a record of one byte": (change_record(lambda raw: raw[:1]), {"get", "keys", "items", "values"}),
    "an endless length of key": (change_record(lambda raw: b"\x01" + b"\xff" * 20), {"get", "keys", "items", "values"}),
    "an index entry without record": (dangling_index, {"get"}),
    "a record without index entry": (record_without_index, {"get"}),
    "an index entry of another key's record": (crossed_index, {"get"}),
    "a digest of another key's record": (crossed_digest, {"get", "in"}),
    "an index entry cut short": (index_entry(b"abc"), {"get", "in"}),
    "an index entry out of range": (index_entry(NUMBER.pack(-3)), {"get", "in"}),
    "an index entry of a number never given": (index_entry(NUMBER.pack(10**9)), {"get"}),
    "a record out of range": (lambda inside: inside.put(-3, inside.record(5)), {"keys"}),
    "no format": (change_meta(b"format", None), {"open"}),
    "a format that does not parse": (change_meta(b"format", b"\xff"), {"open"}),
    "no kind": (change_meta(b"kind", None), {"open"}),
    "an unknown kind": (change_meta(b"kind", b"?"), {"open"}),
    "a next number cut short": (change_meta(b"next", b"abc"), {"open"}),
    "no databases": (drop("meta"), {"open"}),
    "no values": (drop("values"), {"open"}),
    "no index": (drop("order"), {"open"}),
}
INSIDE_TRACKER = {
    "a status block cut short": (change_block(lambda raw: raw[:100]), {"get", "done", "todo", "try", "num_done"}),
    "an empty status block": (change_block(lambda raw: b""), {"get", "done", "todo", "try", "num_done"}),
    "a status block too long": (change_block(lambda raw: raw + b"\0"), {"get", "done", "todo", "try", "num_done"}),
    "no status block": (change_block(lambda raw: None), {"get", "done", "todo", "try", "num_done"}),
    "a status without record": (set_status(450, 1), {"todo", "try", "num_done"}),
    "a record without status": (set_status(5, 0), {"get", "done", "todo", "try", "num_done"}),
    "data that is no dict": (
        change_record(lambda raw: raw[: raw.index(b"{")] + b"[1]"),
        {"get", "items", "values", "todo items"},
    ),
    "no statuses": (drop("status"), {"open"}),
}
