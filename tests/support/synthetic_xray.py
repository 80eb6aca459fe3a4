"""Synthetic pictures in the layout of Kaggle's chest X-rays. Nothing about them is medical: for tests only.

Normal: two dark ovals on grey. Virus: the same with grain all over. Bacteria: the same with one bright patch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from flbc.demo.xray import CLASSES


def draw(kind: str, rng: np.random.Generator, height: int = 96, width: int = 120) -> Image.Image:
    """Draw one picture; real ones are 10 times as wide and high."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    lungs = ((np.abs(x) - 0.4) / 0.3) ** 2 + (y / 0.8) ** 2 < 1
    pixels = np.where(lungs, 60.0, 150.0) + rng.normal(0, 2, lungs.shape)
    if kind == "virus":
        pixels += rng.normal(0, 45, lungs.shape)
    if kind == "bacteria":
        centre = rng.uniform(-0.4, 0.4, 2)
        pixels += 120 * (((x - centre[0]) / 0.35) ** 2 + ((y - centre[1]) / 0.35) ** 2 < 1)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write(folder: Path, children: int = 10, seed: int = 0) -> Path:
    """Write ``children`` children of each class, every third with two images; return ``folder``."""
    rng = np.random.default_rng(seed)
    for part in ("train", "val", "test"):
        for place in ("NORMAL", "PNEUMONIA"):
            (folder / part / place).mkdir(parents=True)
            (folder / part / place / ".DS_Store").write_bytes(b"as in the archive")
    for kind in CLASSES:
        for child in range(children):
            part = ("train", "train", "val", "test")[child % 4]
            for image in range(2 if child % 3 == 0 else 1):
                if kind == "normal":
                    path = folder / part / "NORMAL" / f"IM-{child:04d}-{image + 1:04d}.jpeg"
                else:
                    # As in the archive, both causes count their children from 1.
                    path = folder / part / "PNEUMONIA" / f"person{child + 1}_{kind}_{image + 1}.jpeg"
                picture = draw(kind, rng)
                # Some of the real ones are stored in colour.
                (picture.convert("RGB") if child % 5 == 0 else picture).save(path, quality=90)
    return folder
