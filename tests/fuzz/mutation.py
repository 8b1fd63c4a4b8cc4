"""Damaged copies of good files."""

import random
import re

NUMBERS = (b"0", b"-1", b"1e999", b"NaN", b"null", b'"1"', b"9999999999999999999", b"[]", b"{}", b"1.5", b"true")


def mutated(generator: random.Random, seeds: list[bytes]) -> bytes:
    """One of the seeds with a few changes such as disks, networks, editors and attackers make."""
    data = bytearray(generator.choice(seeds))
    for _ in range(generator.choice((1, 1, 1, 2, 3, 8))):
        data = bytearray(generator.choice(CHANGES)(generator, data, seeds))
    return bytes(data)


def _place(generator: random.Random, data: bytearray) -> int:
    """A random position; half of the time within the first hundred bytes, where headers are."""
    end = len(data) if generator.random() < 0.5 else min(len(data), 100)
    return generator.randrange(end) if end else 0


def _flip(generator: random.Random, data: bytearray, _: list[bytes]) -> bytes:
    if data:
        data[_place(generator, data)] ^= 1 << generator.randrange(8)
    return data


def _set(generator: random.Random, data: bytearray, _: list[bytes]) -> bytes:
    place, size = _place(generator, data), generator.choice((1, 2, 4, 8))
    value = generator.choice((b"\0", b"\xff", b"\x7f", b"\x80", generator.randbytes(1)))
    return data[:place] + value * size + data[place + size :]


def _cut(generator: random.Random, data: bytearray, _: list[bytes]) -> bytes:
    return data[: _place(generator, data)]


def _remove(generator: random.Random, data: bytearray, _: list[bytes]) -> bytes:
    place = _place(generator, data)
    return data[:place] + data[place + generator.randrange(1, 200) :]


def _repeat(generator: random.Random, data: bytearray, _: list[bytes]) -> bytes:
    place = _place(generator, data)
    piece = data[place : place + generator.randrange(1, 200)]
    return data[:place] + piece * generator.choice((2, 3, 50)) + data[place:]


def _splice(generator: random.Random, data: bytearray, seeds: list[bytes]) -> bytes:
    other = generator.choice(seeds)
    return data[: _place(generator, data)] + other[_place(generator, bytearray(other)) :]


def _number(generator: random.Random, data: bytearray, _: list[bytes]) -> bytes:
    """Replaces a number in text by another value."""
    numbers = list(re.finditer(rb"-?\d+(\.\d+)?", bytes(data[:100_000])))
    if not numbers:
        return data
    found = generator.choice(numbers)
    return data[: found.start()] + generator.choice(NUMBERS) + data[found.end() :]


CHANGES = (_flip, _flip, _set, _cut, _remove, _repeat, _splice, _number)
