"""Small discrete logarithms on secp256k1: baby-step giant-step (Shanks 1971) around zero.

Sums of model updates lie near zero, on both sides. Two things follow. A point and its inverse have the same x, so a
table of x(1·P) … x(n·P) recognises every logarithm in [-n, n]; and giant steps of 2n + 1 go outwards from zero in both
directions, so that a value costs what it measures and not what it could have been.

The table depends on the base alone, so it is kept on disk. It is public, yet whoever can change it could make a node
refuse every sum. The file is read only if nobody else has access to it, and if base, size and hash are right; else
it is made anew. A wrong table cannot give a wrong number: a hit is checked against the whole point.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from flbc.crypto._checks import check_int
from flbc.crypto._files import read_private, write_new
from flbc.crypto.group import (
    POINT_BYTES,
    FixedBase,
    Point,
    add,
    encode_points,
    encode_scalar,
    negate,
    parse_point,
)
from flbc.errors import KeyFileError

#: Largest magnitude that is looked for: one value takes up to 2^14 giant steps then, some 80 ms.
MAX_LIMIT = 1 << 32
# The table is a 128th of the range: a value takes 64 giant steps to either side at most, and one or two if it is
# small. Up to a range of 2^25 that is; the largest table takes 1 or 2 s to make, and 3 MB.
_RANGE_TO_TABLE_BITS, _LEAST_BITS, _MOST_BITS = 7, 12, 18
_MAGIC = b"flbc dlog 1\n"
_KEY_BYTES, _INDEX_BYTES, _HASH_BYTES = 8, 4, 32

Keys: TypeAlias = NDArray[np.uint64]
Indices: TypeAlias = NDArray[np.uint32]


class DiscreteLog:
    """Logarithms to one base in [-limit, limit].

    Parameters
    ----------
    base : bytes
        A point, 33 bytes.
    limit : int
        Largest magnitude that will ever be asked for, at most 2^32: it decides the size of the table.
    directory : Path, optional
        Where tables are kept; without one it is made anew each time.

    Raises
    ------
    CiphertextError
        If the base is no point.
    ValueError
        If the limit is out of range.
    """

    def __init__(self, base: bytes, limit: int, directory: Path | None = None) -> None:
        self._base = parse_point(base, "the base of a logarithm")
        self._limit = check_int("limit", limit, 1, MAX_LIMIT)
        self.size = 1 << min(max(limit.bit_length() - _RANGE_TO_TABLE_BITS, _LEAST_BITS), _MOST_BITS)
        self._keys, self._indices = _table(self._base, self.size, directory)
        self._step = 2 * self.size + 1
        forward = self._base.multiply(encode_scalar(self._step))
        self._forward, self._back = forward, negate(forward)
        self._small = FixedBase(self._base, 1 << 20, (self.size.bit_length() + 7) // 8)

    def solve(self, points: Sequence[Point | None], limit: int | None = None) -> list[int | None]:
        """Return the logarithms of many points together, which is faster than one by one.

        Parameters
        ----------
        points : sequence of (Point or None)
            None is the point at infinity, whose logarithm is 0.
        limit : int, optional
            Largest magnitude this time, at most the one that the table was made for.

        Returns
        -------
        list of (int or None)
            None where there is none in the range.
        """
        limit = self._limit if limit is None else check_int("limit", limit, 0, self._limit)
        found: list[int | None] = [0 if point is None else None for point in points]
        start = {i: point for i, point in enumerate(points) if point is not None}
        self._look_up(start, 0, found)
        steps = max(0, -(-(limit - self.size) // self._step))
        sides = [(self._back, start), (self._forward, dict(start))]
        for step in range(1, steps + 1):
            for sign, (towards, pending) in zip((1, -1), sides, strict=True):
                for i in [i for i in pending if found[i] is not None]:
                    del pending[i]
                self._walk(pending, towards, sign * step * self._step, found)
                self._look_up(pending, sign * step * self._step, found)
        return [None if value is None or abs(value) > limit else value for value in found]

    def _walk(self, pending: dict[int, Point], towards: Point, offset: int, found: list[int | None]) -> None:
        for i, point in list(pending.items()):
            moved = add([point, towards])
            if moved is None:
                found[i] = offset
                del pending[i]
            else:
                pending[i] = moved

    def _look_up(self, pending: dict[int, Point], offset: int, found: list[int | None]) -> None:
        """Note the logarithms of the points that are in the table; they had ``offset`` taken away."""
        if not pending:
            return
        keys = _keys_of(encode_points(pending.values()))
        places = np.searchsorted(self._keys, keys)
        hits = self._keys[np.minimum(places, self.size - 1)] == keys
        for at, i in enumerate(pending):
            if hits[at]:
                value = self._confirm(pending[i], int(places[at]), keys[at])
                found[i] = None if value is None else value + offset

    def _confirm(self, point: Point, place: int, key: np.uint64) -> int | None:
        """Compare a hit with the whole point, which also gives its sign."""
        data = point.format()
        while place < self.size and self._keys[place] == key:
            index = int(self._indices[place])
            candidate = add(self._small.terms(index)) if index <= self.size else None
            if candidate is not None and (known := candidate.format())[1:] == data[1:]:
                return index if known == data else -index
            place += 1
        return None


# ---------------------------------------------------------------------- the table and its file
def _keys_of(data: bytes) -> Keys:
    """Read the first 8 bytes of each point's x."""
    points = np.frombuffer(data, np.uint8).reshape(-1, POINT_BYTES)
    return np.ascontiguousarray(points[:, 1 : 1 + _KEY_BYTES]).view(">u8").reshape(-1).astype(np.uint64)


def _table(base: Point, size: int, directory: Path | None) -> tuple[Keys, Indices]:
    """Return the sorted keys of 1·base … size·base, and which multiple each one is."""
    header = _MAGIC + base.format() + size.to_bytes(8, "big")
    path = None if directory is None else directory / f"dlog-{sha256(header).hexdigest()[:16]}.table"
    if path is not None and (table := _load(path, header, size)) is not None:
        return table
    keys = np.empty(size, np.uint64)
    point: Point | None = None
    for start in range(0, size, 1024):  # points are large: never all at once
        block = bytearray()
        for _ in range(min(1024, size - start)):
            point = base if point is None else Point.combine_keys([point, base])
            block += point.format()
        part = _keys_of(bytes(block))
        keys[start : start + len(part)] = part
    order = np.argsort(keys, kind="stable")
    table = keys[order], (order + 1).astype(np.uint32)
    if path is not None:
        with contextlib.suppress(OSError):  # a table that cannot be kept costs time only
            _save(path, header, *table)
    return table


def _load(path: Path, header: bytes, size: int) -> tuple[Keys, Indices] | None:
    """Read a table; None if there is none, or if anything about it is not as it should be."""
    length = len(header) + _HASH_BYTES + size * (_KEY_BYTES + _INDEX_BYTES)
    try:
        data = read_private(path, length, "table")
    except KeyFileError:
        return None
    body = data[len(header) + _HASH_BYTES :]
    if len(data) != length or data[: -len(body)] != header + _digest(header, body):
        return None
    keys = np.frombuffer(body, "<u8", size).astype(np.uint64)
    return keys, np.frombuffer(body, "<u4", offset=size * _KEY_BYTES).astype(np.uint32)


def _save(path: Path, header: bytes, keys: Keys, indices: Indices) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    body = keys.astype("<u8").tobytes() + indices.astype("<u4").tobytes()
    fresh = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    write_new(fresh, header + _digest(header, body) + body)
    try:
        os.replace(fresh, path)  # another process may have written the same table meanwhile
    finally:
        fresh.unlink(missing_ok=True)


def _digest(header: bytes, body: bytes) -> bytes:
    return sha256(header + body).digest()
