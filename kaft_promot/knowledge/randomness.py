"""Random draws that depend on a key and on nothing else (wall 7 of the design).

The generator is BLAKE2b in counter mode over (seed, example id, purpose), so the draws of an
example are the same in any order, any process, any version of Python or NumPy, and the draws
for one purpose do not move when another purpose draws more or less.
"""

from __future__ import annotations

import hashlib


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

    def distinct_below(self, n: int, count: int) -> list[int]:
        """`min(n, count)` distinct integers in [0, n), in random order; the work is bounded."""
        if count >= n or n <= 4 * count:
            order = list(range(n))  # a partial Fisher-Yates shuffle
            count = min(n, count)
            for i in range(count):
                j = i + self.below(n - i)
                order[i], order[j] = order[j], order[i]
            return order[:count]
        chosen: dict[int, None] = {}
        while len(chosen) < count:  # fewer than a quarter are taken: ends after a few draws more
            chosen[self.below(n)] = None
        return list(chosen)
