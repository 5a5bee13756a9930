"""PNG files, decoded by hand as the standard says."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import pytest

from autoquant.array import Array
from autoquant.reports.png import data_uri, png


def decoded(content: bytes) -> Array:
    """Read chunks, check their CRC, and undo filter 0."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        (crc,) = struct.unpack(">I", content[at + 8 + length : at + 12 + length])
        assert crc == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    width, height, depth, color, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, rest, list(chunks)) == (8, [0, 0, 0], [b"IHDR", b"IDAT", b"IEND"])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, {0: 1, 2: 3}[color])


@pytest.mark.parametrize("shape", [(5, 7, 3), (7, 5, 1), (1, 1, 3)])
def test_a_picture_comes_back(shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(decoded(png(picture)), picture)
    head, _, body = data_uri(picture).partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body) == png(picture)
