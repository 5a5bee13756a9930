"""Pictures as data URIs of PNG: eight bits a channel, no filter, no dependency (https://www.w3.org/TR/png-3/)."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from autoquant.array import Array

COLOR_TYPES = {1: 0, 3: 2}
"""Channels -> colour type: greyscale, RGB."""


def png(picture: Array) -> bytes:
    """A picture (height, width, 1 or 3), uint8, as a PNG file."""
    height, width, channels = picture.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each begins with its filter, 0 for none
    rows[:, 1:] = picture.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, COLOR_TYPES[channels], 0, 0, 0)
    content = zlib.compress(rows.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", content) + _chunk(b"IEND", b"")


def data_uri(picture: Array) -> str:
    """The same for the `src` of an image."""
    return f"data:image/png;base64,{base64.b64encode(png(picture)).decode('ascii')}"


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
