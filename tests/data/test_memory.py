"""A large folder costs no more memory than a few frames, to decode and to read."""

import subprocess
import sys

import numpy as np
import pytest

from tests.data.video.film_files import write_video

NUM_FILMS, NUM_FRAMES, SIDE = 25, 40, 144
ALL_FRAMES_MIB = NUM_FILMS * NUM_FRAMES * SIDE * SIDE * 3 / 2**20  # 59.

# Prints by how much, in MiB, the process grew beyond what it needs for one film.
SCRIPT = f"""
import re, sys
from pathlib import Path
from convlstm_jax.data.video.config import VideoConfig

def peak():
    # What `resource` tells begins with the peak of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\\s+(\\d+)", status)[1]) / 1024

def clips(path):
    config = VideoConfig(path=path, height={SIDE}, width={SIDE}, channels=3,
                         split_by="time")
    train = config.sources(num_frames=4, seed=0).train
    for index in range(len(train)):
        train[index]

clips(sys.argv[1] + "/0.avi")
begun = peak()
clips(sys.argv[1])
print(peak() - begun)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the memory")
def test_memory_does_not_grow_with_the_folder(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(NUM_FILMS):
        film = rng.integers(0, 256, (NUM_FRAMES, 9, 9, 3), dtype=np.uint8)
        film = film.repeat(SIDE // 9, 1).repeat(SIDE // 9, 2)
        write_video(tmp_path / f"{number}.avi", film, "mpeg4", "yuv420p")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.5 * ALL_FRAMES_MIB
