"""The accesses of tastypy_fast's shared classes, written with py-lmdb alone.

These are limits, not stores: they check nothing, serve no second reader, and revert nothing. What they have in common
are the databases of the layout (``docs/how-it-works.md``) and the undo log in a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from struct import Struct
from typing import Any

import orjson

from benchmarks.shared_stores.bare_environment import PAGE, NeverFlushed, OpenEnvironment
from benchmarks.shared_stores.base import COUNTER, Blocks, Shared
from benchmarks.stores.base import Batches

SEQ = Struct(">Q")
# An automatic sync clears the undo log.
SYNC_AT = 1000


class BareLayout(Shared):
    """Keys lead to sequence numbers (``order``), these lead to records with the key in front (``values``)."""

    databases: tuple[str, ...] = ("values", "order")

    def __init__(self, path: str, environment: OpenEnvironment = NeverFlushed) -> None:
        self._arguments = path, environment
        self._environment = environment(path, len(self.databases))
        self._writing, self._begin = self._environment.writing, self._environment.begin
        opened = {name: self._environment.env.open_db(name.encode()) for name in self.databases}
        self._values, self._order = opened["values"], opened["order"]
        self._opened = opened
        self._log = os.open(os.path.join(path, "images"), os.O_RDWR | os.O_CREAT)
        # The keys or tasks with an image, where the log ends, and the images that the next commit writes into the file.
        self._logged: set[int] = set()
        self._log_end = 0
        self._waiting = bytearray()

    def __reduce__(self) -> Any:
        return type(self), self._arguments

    def __len__(self) -> int:
        with self._begin() as txn:
            return int(txn.stat(self._order)["entries"])

    def _note_image(self, seq: int, image: bytes) -> None:
        if seq not in self._logged:
            self._logged.add(seq)
            self._waiting += SEQ.pack(seq) + image

    def _write_images(self) -> None:
        """Append the images of a commit to the file. Begin anew after as many as a sync clears."""
        if self._waiting:
            self._log_end += os.pwrite(self._log, self._waiting, self._log_end)
            self._waiting.clear()
        if len(self._logged) >= SYNC_AT:
            self._logged.clear()
            self._log_end = 0

    def sync(self) -> None:
        self._environment.sync()

    def close(self) -> None:
        os.close(self._log)
        self._environment.close()


class BareLayoutDict(BareLayout):
    """A dict. Each operation, or each batch, is a transaction."""

    def _set(self, txn: Any, key: str, value: Any) -> None:
        encoded = key.encode()
        seq = txn.get(encoded, db=self._order)
        if seq is None:
            seq = SEQ.pack(txn.stat(self._order)["entries"])
            txn.put(encoded, seq, db=self._order)
        else:
            self._note_image(SEQ.unpack(seq)[0], txn.get(seq, db=self._values))
        txn.put(seq, encoded + b"\0" + orjson.dumps(value), db=self._values)

    def fill(self, batches: Batches) -> None:
        for batch in batches:
            with self._writing(len(batch) * PAGE) as txn:
                for key, value in batch:
                    self._set(txn, key, value)
                self._write_images()

    set_many = fill

    def set_each(self, pairs: list[Any]) -> None:
        for key, value in pairs:
            with self._writing() as txn:
                self._set(txn, key, value)
                self._write_images()

    def delete_each(self, keys: list[str]) -> None:
        for key in keys:
            encoded = key.encode()
            with self._writing() as txn:
                seq = txn.get(encoded, db=self._order)
                self._note_image(SEQ.unpack(seq)[0], txn.get(seq, db=self._values))
                txn.delete(encoded, db=self._order)
                txn.delete(seq, db=self._values)
                self._write_images()

    def increment_locked(self, blocks: Blocks) -> None:
        for block in blocks:
            with self._writing() as txn:
                value = orjson.loads(self._read(txn, COUNTER))
                for _ in block:
                    value += 1
                self._set(txn, COUNTER, value)
                self._write_images()

    def _read(self, txn: Any, key: str) -> bytes:
        record: bytes = txn.get(txn.get(key.encode(), b"", db=self._order), b"\0null", db=self._values)
        return record.partition(b"\0")[2]

    def get(self, key: str) -> Any:
        with self._begin() as txn:
            return orjson.loads(self._read(txn, key))

    def counter(self) -> Any:
        return self.get(COUNTER)

    def items(self) -> Iterator[tuple[str, Any]]:
        with self._begin() as txn:
            for record in txn.cursor(self._values).iternext(keys=False):
                key, _, value = record.partition(b"\0")
                yield key.decode(), orjson.loads(value)
