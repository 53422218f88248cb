"""Folders of radar composites, for tests."""

import gzip
from datetime import datetime, timedelta

import numpy as np


def write_composites(folder, start, count, size=(36, 52)):
    """Drifting rain with a corner without data, as gzip PGM files."""
    height, width = size
    rng = np.random.default_rng(count)
    frame = rng.integers(70, 150, size, np.uint8)
    frame[rng.random(size) < 0.5] = 0
    folder.mkdir(exist_ok=True)
    for index in range(count):
        moved = np.roll(frame, index, axis=1)
        moved[:6, :6] = 255
        time = datetime.strptime(start, "%Y%m%d%H%M") + timedelta(minutes=5 * index)
        data = f"P5 {width} {height} 255\n".encode() + moved.tobytes()
        (folder / f"{time:%Y%m%d%H%M}.pgm.gz").write_bytes(gzip.compress(data))
