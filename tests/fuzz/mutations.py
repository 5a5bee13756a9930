"""Damage to files: by chance, by words that formats know, and by numbers at their limits."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

BINARY = (
    b"",
    b"\0",
    b"\xff" * 4,
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"\0\0\0\x80",
    b"\0" * 64,
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # -1 as a varint
    b"\x80" * 10,
    b"(((((((((((((((((((((((((((((",
)
"""What stands for sizes, offsets and lengths in binary files."""
DICTIONARY: tuple[str, ...] = tuple(json.loads(Path(__file__).with_name("dictionary.json").read_text(encoding="utf-8")))
"""What parsers of text stumble over, and keys and values of our files, for anywhere where they should not be."""
TOKEN = re.compile(r'"[^"\n]*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|[A-Za-z_]\w*|[\[\]{}:,=]')
Mutation = Callable[[random.Random, bytes], bytes]


def mutate(random_: random.Random, content: bytes, *, text: bool) -> bytes:
    """One to four changes."""
    choices: Sequence[Mutation] = (*_ANY, *(_OF_TEXT if text else _OF_BINARY))
    for _ in range(random_.choice((1, 1, 1, 2, 4))):
        content = random_.choice(choices)(random_, content)
    return content


def _place(random_: random.Random, content: bytes) -> int:
    return random_.randrange(len(content) + 1)


def _flip(random_: random.Random, content: bytes) -> bytes:
    place = _place(random_, content[:-1])
    changed = bytearray(content or b"\0")
    changed[place] ^= 1 << random_.randrange(8)
    return bytes(changed)


def _cut(random_: random.Random, content: bytes) -> bytes:
    return content[: _place(random_, content)]


def _remove(random_: random.Random, content: bytes) -> bytes:
    start = _place(random_, content)
    return content[:start] + content[start + random_.choice((1, 4, 16, 256)) :]


def _repeat(random_: random.Random, content: bytes) -> bytes:
    start, size = _place(random_, content), random_.choice((1, 8, 64, 1024))
    return content[:start] + content[start : start + size] * random_.choice((2, 3, 50)) + content[start:]


def _swap(random_: random.Random, content: bytes) -> bytes:
    one, other, size = _place(random_, content), _place(random_, content), random_.choice((4, 8, 32))
    return content[:one] + content[other : other + size] + content[one + size :]


def _insert_binary(random_: random.Random, content: bytes) -> bytes:
    place, new = _place(random_, content), random_.choice(BINARY)
    return content[:place] + new + content[place:]


def _overwrite(random_: random.Random, content: bytes) -> bytes:
    place, new = _place(random_, content), random_.choice(BINARY)
    return content[:place] + new + content[place + len(new) :]


def _number(random_: random.Random, content: bytes) -> bytes:
    """Another number in the place of four or eight bytes."""
    place, size = _place(random_, content), random_.choice((1, 2, 4, 8))
    value = random_.choice((0, 1, 2, 127, 128, 255, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1))
    return content[:place] + (value % (1 << 8 * size)).to_bytes(size, "little") + content[place + size :]


def _replace_token(random_: random.Random, content: bytes) -> bytes:
    text = content.decode("utf-8", "replace")
    tokens = list(TOKEN.finditer(text))
    if not tokens:
        return _insert_text(random_, content)
    token = random_.choice(tokens)
    new = random_.choice((*DICTIONARY, random_.choice(tokens)[0], f'"{random_.choice(DICTIONARY)}"'))
    return (text[: token.start()] + new + text[token.end() :]).encode("utf-8", "surrogatepass")


def _insert_text(random_: random.Random, content: bytes) -> bytes:
    place, new = _place(random_, content), random_.choice(DICTIONARY).encode("utf-8", "surrogatepass")
    return content[:place] + new * random_.choice((1, 1, 1, 2000)) + content[place:]


def _lines(random_: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    one, other = random_.randrange(len(lines)), random_.randrange(len(lines))
    kind = random_.randrange(4)
    if kind == 0:
        del lines[one]
    elif kind == 1:
        lines.insert(one, lines[other])
    elif kind == 2:
        lines[one], lines[other] = lines[other], lines[one]
    else:
        lines[one] = lines[one][: _place(random_, lines[one])]
    return b"\n".join(lines)


_ANY: tuple[Mutation, ...] = (_flip, _cut, _remove, _repeat, _swap)
_OF_BINARY: tuple[Mutation, ...] = (_insert_binary, _overwrite, _number, _flip)
_OF_TEXT: tuple[Mutation, ...] = (_replace_token, _replace_token, _replace_token, _insert_text, _lines)
