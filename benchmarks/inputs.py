"""What goes into the stores: keys of two kinds, values of 78 bytes, and the links of a crawl."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

# A page links to some 20 others of its own host.
HOSTS, LINKS = 1000, 20
MOST_SCATTERED = 200_000
KINDS = ("url", "digest")


def key_of(number: int) -> str:
    """A URL as a crawler finds them: some of one host, then some of another, each host's pages in order."""
    host = (number // LINKS) * 2654435761 % 2**32 * HOSTS >> 32
    return f"https://www.site{host:03d}.example/articles/{number:09d}.html"


def digest_of(number: int) -> str:
    """A key that has nothing to do with the ones before it, as the digests of files have not."""
    return blake2b(number.to_bytes(8, "little"), digest_size=16).hexdigest()


def value_of(number: int) -> dict[str, Any]:
    """A value of 78 bytes of JSON."""
    title = f"The article number {number:07d}"
    return {"status": 200, "size": number % 90_000 + 10_000, "title": title, "links": [1, 2]}


def changed_value(number: int) -> dict[str, Any]:
    """The same with another status."""
    return {**value_of(number), "status": 201}


class Content(NamedTuple):
    """What a store is filled with: ``n`` keys of one kind, and a value for each."""

    n: int
    kind: str = "url"

    def key(self, number: int) -> str:
        return key_of(number) if self.kind == "url" else digest_of(number)

    def keys(self, numbers: Iterable[int] | None = None) -> Iterator[str]:
        """Those of these numbers, or all of them in order."""
        return map(key_of if self.kind == "url" else digest_of, range(self.n) if numbers is None else numbers)

    def pairs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return zip(self.keys(), map(value_of, range(self.n)), strict=True)

    def scattered(self) -> array[int]:
        """The numbers of up to 200,000 of the keys, in random order, each once."""
        rng = random.Random(self.n)
        if self.n <= 2 * MOST_SCATTERED:
            numbers = array("L", range(self.n))
            rng.shuffle(numbers)
            return numbers[:MOST_SCATTERED]
        # (one that takes little memory, which is measured)
        seen, numbers = bytearray(self.n), array("L")
        while len(numbers) < MOST_SCATTERED:
            number = rng.randrange(self.n)
            if not seen[number]:
                seen[number] = 1
                numbers.append(number)
        return numbers

    def left(self) -> range:
        """The numbers of the (at most 100) tasks that are left when the others are done, spread over all."""
        return range(0, self.n, max(1, -(-self.n // 100)))

    def some_numbers(self) -> list[int]:
        return sorted({0, self.n // 3, self.n // 2, self.n - 1})

    def visit(self, url: str) -> tuple[dict[str, Any], list[str]]:
        """What a crawler finds at a URL: something to keep, and links, of which each page but the first is among two
        others' and one page leads back."""
        number = int(url[-14:-5])
        links = [key_of(other) for other in (2 * number + 1, 2 * number + 2) if other < self.n]
        return {"status": 200, "size": number}, [*links, key_of(number // 2)]
