"""Write small files in the layout of Fashion-MNIST."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from flbc.demo.fashion import FILES


def idx(array: np.ndarray) -> bytes:
    """Return an IDX file of bytes, unpacked."""
    header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write(folder: Path, rows: tuple[int, int] = (60, 20), seed: int = 0) -> Path:
    """Write four files of random pictures, classes in turn; return ``folder``."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for (pictures, classes), count in zip((FILES[:2], FILES[2:]), rows, strict=True):
        (folder / pictures).write_bytes(gzip.compress(idx(rng.integers(0, 256, (count, 28, 28)))))
        (folder / classes).write_bytes(gzip.compress(idx(np.arange(count) % 10)))
    return folder
