"""Random draws and held-out parts that depend on a key and on nothing else (wall 7 of the design).

The generator is BLAKE2b in counter mode over (seed, example id, purpose), so the draws of an
example are the same in any order, any process, any version of Python or NumPy, and the draws
for one purpose do not move when another purpose draws more or less.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator


def tenth(text: str) -> int:
    """Which tenth of all texts one belongs to, from 0 to 9: what is held out by a hash.

    It depends on the text alone, so a text is held out from every file that it stands in.
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") % 10


class KeyedDraws:
    """A stream of draws for one (seed, example id, purpose)."""

    __slots__ = ("_counter", "_key")

    def __init__(self, seed: int, example_id: str, purpose: str) -> None:
        text = f"{seed}\x00{purpose}\x00{example_id}"
        self._key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        self._counter = 0

    def below(self, n: int) -> int:
        """A uniform integer in [0, n); n >= 1 and well below 2**64."""
        self._counter += 1
        digest = hashlib.blake2b(
            self._counter.to_bytes(8, "little"), key=self._key, digest_size=8
        ).digest()
        return int.from_bytes(digest, "little") % n

    def distinct_below(self, n: int, count: int) -> Iterator[int]:
        """`min(n, count)` distinct integers in [0, n), uniform, drawn one by one as asked for."""
        moved: dict[int, int] = {}  # a Fisher-Yates shuffle that stores only what it has moved
        for i in range(min(n, count)):
            j = i + self.below(n - i)
            yield moved.get(j, j)
            moved[j] = moved.get(i, i)
