"""The accesses of a claim and of its end, written with py-lmdb alone, for several layouts on disk.

These are limits, not stores: they check nothing, serve no second reader, and recover no claim of a worker that died.
Each has the databases of tastypy_fast (``docs/how-it-works.md``). They differ in where a claim is, and in where the
undo log keeps the status from before the first change of a task.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from struct import Struct
from typing import Any, ClassVar

from benchmarks.shared_stores.bare_environment import NeverFlushed, OpenEnvironment
from benchmarks.shared_stores.bare_layout import SEQ, SYNC_AT, BareLayout
from benchmarks.stores.base import Batches, Tasks

NUMBER = Struct("=I")
HEAD = Struct("=8H")
# The flags of a status, as in tastypy_fast.
PRESENT, DONE, CLAIMED, ONE_TRY = 1, 2, 8, 16
# Worker, slot, position, time and tries.
CLAIM = bytes(40)


class BareClaims(BareLayout, Tasks):
    """The layout of tastypy_fast up to format 4: claims and before-images are databases of their own."""

    layout = "claims and undo log in databases"
    databases = ("values", "order", "status", "claims", "images")
    # The bytes of a status, and how many of them a block has. Two blocks fill a page.
    entry_size = 4
    tasks_per_block = 500
    # The places of a claim and of a before-image: "database", "main" (LMDB's main database), "file", "status" or "" for
    # nowhere.
    claim: ClassVar[str] = "database"
    image: ClassVar[str] = "database"

    def __init__(self, path: str, environment: OpenEnvironment = NeverFlushed) -> None:
        super().__init__(path, environment)
        self._status, self._images = self._opened["status"], self._opened["images"]
        self._claims = self._environment.env.open_db(None) if self.claim == "main" else self._opened["claims"]
        self._in_database: set[int] = set()
        self._next = 0

    def add(self, batches: Batches) -> None:
        with self._writing() as txn:
            seq = txn.stat(self._order)["entries"]
            for key in chain.from_iterable(batches):
                txn.put(SEQ.pack(seq), key.encode() + b"\0{}", db=self._values)
                txn.put(key.encode(), SEQ.pack(seq), db=self._order)
                block = self._block(txn, seq // self.tasks_per_block)
                NUMBER.pack_into(block, self._at(seq), PRESENT)
                self._put_block(txn, seq // self.tasks_per_block, block)
                seq += 1

    def _block(self, txn: Any, number: int) -> bytearray:
        raw = txn.get(SEQ.pack(number), db=self._status)
        return bytearray(raw or HEAD.size + self.entry_size * self.tasks_per_block)

    def _put_block(self, txn: Any, number: int, block: bytearray) -> None:
        txn.put(SEQ.pack(number), bytes(block), db=self._status)

    def _at(self, seq: int) -> int:
        return HEAD.size + self.entry_size * (seq % self.tasks_per_block)

    def _record_image(self, txn: Any, seq: int, status: int) -> None:
        if self.image == "file":
            self._note_image(seq, NUMBER.pack(status))
        elif self.image:
            self._in_database.add(seq)
            txn.put(SEQ.pack(seq), NUMBER.pack(status), overwrite=False, db=self._images)

    def claim_each(self) -> Iterator[str]:
        """Claim the next task, and yield its key. Each claim is a commit."""
        while claimed := self._claim(1):
            yield from claimed

    def _claim(self, limit: int) -> list[str]:
        """Claim up to ``limit`` tasks in a commit, and return their keys."""
        keys: list[str] = []
        with self._writing() as txn:
            end = int(txn.stat(self._order)["entries"])
            while len(keys) < limit and self._next < end:
                number = self._next // self.tasks_per_block
                block = self._block(txn, number)
                earlier = len(keys)
                for seq in range(self._next, min(end, (number + 1) * self.tasks_per_block)):
                    (status,) = NUMBER.unpack_from(block, self._at(seq))
                    self._next = seq + 1
                    if not status & (DONE | CLAIMED):
                        self._record_image(txn, seq, status)
                        if self.claim in ("database", "main"):
                            txn.put(SEQ.pack(seq), CLAIM, db=self._claims)
                        NUMBER.pack_into(block, self._at(seq), (status | CLAIMED) + ONE_TRY)
                        keys.append(txn.get(SEQ.pack(seq), db=self._values).partition(b"\0")[0].decode())
                        if len(keys) == limit:
                            break
                if len(keys) > earlier:
                    self._put_block(txn, number, block)
            self._write_images()
        return keys

    def mark_done_each(self, keys: list[str]) -> None:
        """Mark tasks done, and end their claims. Each is a commit."""
        for key in keys:
            self._mark_done([key])

    def _mark_done(self, keys: list[str]) -> None:
        """Mark tasks done in a commit, and end their claims."""
        with self._writing() as txn:
            blocks: dict[int, bytearray] = {}
            for key in keys:
                packed = txn.get(key.encode(), db=self._order)
                (seq,) = SEQ.unpack(packed)
                number = seq // self.tasks_per_block
                if number not in blocks:
                    blocks[number] = self._block(txn, number)
                (status,) = NUMBER.unpack_from(blocks[number], self._at(seq))
                self._record_image(txn, seq, status)
                if self.claim in ("database", "main"):
                    txn.delete(packed, db=self._claims)
                NUMBER.pack_into(blocks[number], self._at(seq), (status | DONE) & ~CLAIMED)
            for number, block in blocks.items():
                self._put_block(txn, number, block)
            self._write_images()
            if len(self._in_database) >= SYNC_AT:
                self._in_database.clear()
                txn.drop(self._images, delete=False)

    def claim_done(self, _batch: int = 1) -> int:
        return self.claim_done_many(1)

    def claim_done_many(self, batch: int) -> int:
        done = 0
        while keys := self._claim(batch):
            self._mark_done(keys)
            done += len(keys)
        return done

    def counts(self) -> tuple[int, int, int]:
        with self._begin() as txn:
            statuses = [NUMBER.unpack_from(block, self._at(seq))[0]
                        for block in txn.cursor(self._status).iternext(keys=False)
                        for seq in range(self.tasks_per_block)]  # fmt: skip
        done = sum(status & DONE != 0 for status in statuses)
        return sum(status & PRESENT for status in statuses), done, sum(status >= ONE_TRY for status in statuses)


class ImagesInFile(BareClaims):
    """The before-images are appended to a file."""

    layout = "undo log in a file"
    image = "file"


class ClaimsInMainImagesInFile(ImagesInFile):
    """The layout of tastypy_fast: claims are in the main database, whose page each commit writes anyway."""

    layout = "claims in the main database, undo log in a file"
    claim = "main"


class ClaimsInStatus(BareClaims):
    """A status has room for its claim, so that a block has fewer of them."""

    layout = "claims in the status"
    entry_size = 12
    tasks_per_block = 160
    claim = "status"


class ClaimsInStatusImagesInFile(ClaimsInStatus):
    """Both of these."""

    layout = "claims in the status, undo log in a file"
    image = "file"


class NoClaims(BareClaims):
    """Neither claims nor an undo log."""

    layout = "neither claims nor undo log"
    claim = image = ""


LAYOUTS: tuple[type[BareClaims], ...] = (
    BareClaims, ImagesInFile, ClaimsInMainImagesInFile, ClaimsInStatus, ClaimsInStatusImagesInFile, NoClaims,
)  # fmt: skip
