"""gzip, undone within a limit."""

from __future__ import annotations

import gzip
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neatlogs_processor.core.inflate import GZIP_MAGIC, Inflater, inflate
from neatlogs_processor.errors import MalformedOtlpError


def unlimited(size: int) -> None:
    assert size > 0


class FullError(Exception):
    pass


@given(st.lists(st.binary(max_size=600), min_size=1, max_size=4), st.integers(1, 50))
def test_members_in_a_row_are_one_body_however_it_is_cut(parts: list[bytes], step: int) -> None:
    """A stream of several members gives all of their content, fed whole or in pieces of any size."""
    body = b"".join(gzip.compress(part) for part in parts)
    assert inflate(body, unlimited) == b"".join(parts)
    inflater = Inflater(unlimited)
    pieces = [piece for start in range(0, len(body), step) for piece in inflater.feed(body[start : start + step])]
    inflater.finish()
    assert b"".join(pieces) == b"".join(parts)


@pytest.mark.parametrize("size", [256 * 1024 - 1, 256 * 1024, 3_000_001])
@pytest.mark.parametrize("content", ["zeros", "noise"])
def test_large_bodies_come_out_whole(size: int, content: str) -> None:
    """What is larger than one step comes out in several, whether it was compressed much or hardly at all."""
    body = bytes(size) if content == "zeros" else random.Random(7).randbytes(size)  # noqa: S311  # the same in each run
    assert inflate(gzip.compress(body) * 2, unlimited) == body * 2


def test_a_bomb_is_stopped_before_it_is_kept() -> None:
    """Each step is announced before it is kept, so a refusal leaves nothing large behind."""
    total = 0

    def grown(size: int) -> None:
        nonlocal total
        total += size
        if total > 1_000_000:
            raise FullError

    with pytest.raises(FullError):
        inflate(gzip.compress(bytes(50_000_000)), grown)
    assert total < 1_500_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x0a\x00",
        gzip.compress(b"content")[:-1],
        gzip.compress(b"content") + b"\0",
        gzip.compress(b"content") + b"trailing",
        gzip.compress(b"content")[:-8] + bytes(8),
        GZIP_MAGIC,
        gzip.compress(b"") * 5000,
    ],
    ids=["empty", "no gzip", "cut off", "padded", "trailing", "wrong checksum", "magic alone", "thousands of members"],
)
def test_what_is_no_gzip_is_malformed(body: bytes) -> None:
    """A body that cannot be read to its very end is refused as a whole."""
    with pytest.raises(MalformedOtlpError):
        inflate(body, unlimited)
