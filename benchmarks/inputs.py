"""Generate the input: keys of two kinds, values of 78 bytes, and the links of a crawl."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

HOSTS = 1000
# The number of consecutive URLs of one host.
URLS_PER_VISIT = 20
MAX_RANDOM = 200_000
KEY_KINDS = ("url", "digest")


def url_of(number: int) -> str:
    """Return a URL. Consecutive numbers give some pages of one host, then of another, as a crawler finds them."""
    host = (number // URLS_PER_VISIT) * 2654435761 % 2**32 * HOSTS >> 32
    return f"https://www.site{host:03d}.example/articles/{number:09d}.html"


def digest_of(number: int) -> str:
    """Return a key that is unrelated to its predecessor, as digests of files are."""
    return blake2b(number.to_bytes(8, "little"), digest_size=16).hexdigest()


def value_of(number: int) -> dict[str, Any]:
    """Return a value of 78 bytes of JSON."""
    title = f"The article number {number:07d}"
    return {"status": 200, "size": number % 90_000 + 10_000, "title": title, "links": [1, 2]}


def changed_value(number: int) -> dict[str, Any]:
    """Return the same value with another status."""
    return {**value_of(number), "status": 201}


class Content(NamedTuple):
    """The content of a store: ``n`` keys of one kind, each with its value."""

    n: int
    kind: str = "url"

    def key(self, number: int) -> str:
        """Return one key."""
        return url_of(number) if self.kind == "url" else digest_of(number)

    def keys(self, numbers: Iterable[int] | None = None) -> Iterator[str]:
        """Yield the keys of these numbers, or all keys in order."""
        return map(url_of if self.kind == "url" else digest_of, range(self.n) if numbers is None else numbers)

    def pairs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield all keys with their values, in order."""
        return zip(self.keys(), map(value_of, range(self.n)), strict=True)

    def random_numbers(self) -> array[int]:
        """Return the numbers of up to 200,000 distinct keys, in random order."""
        rng = random.Random(self.n)
        if self.n <= 2 * MAX_RANDOM:
            numbers = array("L", range(self.n))
            rng.shuffle(numbers)
            return numbers[:MAX_RANDOM]
        # Needs little memory, because memory is measured.
        seen, numbers = bytearray(self.n), array("L")
        while len(numbers) < MAX_RANDOM:
            number = rng.randrange(self.n)
            if not seen[number]:
                seen[number] = 1
                numbers.append(number)
        return numbers

    def remaining(self) -> range:
        """Return the numbers of at most 100 tasks, evenly spread, that stay when all others are done."""
        return range(0, self.n, max(1, -(-self.n // 100)))

    def sample_numbers(self) -> list[int]:
        """Return the numbers of the few keys whose values are verified."""
        return sorted({0, self.n // 3, self.n // 2, self.n - 1})

    def visit(self, url: str) -> tuple[dict[str, Any], list[str]]:
        """Return what a crawler finds at a URL: facts to store, and links.

        Every page except the first is linked from two others. One link of each page leads back.
        """
        number = int(url[-14:-5])
        links = [url_of(other) for other in (2 * number + 1, 2 * number + 2) if other < self.n]
        return {"status": 200, "size": number}, [*links, url_of(number // 2)]
