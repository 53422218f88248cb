"""A large folder costs no more memory than the cache of frames, read or prepared."""

import json
import subprocess
import sys

import av
import numpy as np
import pytest

from convlstm_jax.data.prepared import is_prepared

NUM_VIDEOS, NUM_FRAMES, SIDE = 50, 40, 144
MIB = 2**20
ALL_FRAMES_MIB = NUM_VIDEOS * NUM_FRAMES * SIDE * SIDE * 3 / MIB  # 119.

# Reads every clip, or prepares the folder, and prints the growth of the peak of its
# memory, MiB, since a tenth of the videos were read.
SCRIPT = f"""
import re, sys
from pathlib import Path
from convlstm_jax.data import preparing, video_frames
from convlstm_jax.data.preparing_videos import prepare_videos
from convlstm_jax.data.frame_cache import FrameCache
from convlstm_jax.data.video_folder import video_folder_sources

def peak():
    # What `resource` tells begins with the peak of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024

folder, output, cache_mib = sys.argv[1], sys.argv[2], int(sys.argv[3])
settings = dict(height={SIDE}, width={SIDE}, channels=3, crop_box=(), value_range=(),
                variable="", bad_files="refuse")
if output:
    preparing.SHARD_BYTES = 8 * 2**20
    peaks = []
    prepare_videos(folder, Path(output), settings=settings,
                   report=lambda done, total: peaks.append((done, peak())))
    begun = next(value for done, value in peaks if done >= 5)
    print(peaks[-1][1] - begun)
else:
    video_frames._cache = FrameCache(cache_mib * 2**20)
    sources = video_folder_sources(
        path=folder, num_frames=10, **settings, num_train_sequences=9999,
        num_validation_sequences=9999, num_test_sequences=9999)
    clips = sources.train
    for index in range(len(clips) // 10):
        clips[index]
    begun = peak()
    for index in range(len(clips)):
        clips[index]
    print(peak() - begun)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large") / "films"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(NUM_VIDEOS):
        film = rng.integers(0, 256, (NUM_FRAMES, 9, 9, 3), dtype=np.uint8)
        film = film.repeat(SIDE // 9, 1).repeat(SIDE // 9, 2)
        with av.open(str(folder / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=10, options={"g": "10"})
            stream.height = stream.width = SIDE
            stream.pix_fmt = "yuv420p"
            for frame in film:
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    return folder


def growth_mib(folder, output="", cache_mib=8):
    command = [sys.executable, "-c", SCRIPT, str(folder), str(output), str(cache_mib)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the peak")
def test_memory_does_not_grow_with_the_folder(folder, tmp_path):
    bounded, unbounded = growth_mib(folder), growth_mib(folder, cache_mib=1024)
    prepared = growth_mib(folder, tmp_path / "out")
    print(f"\nof {ALL_FRAMES_MIB:.0f} MiB: {bounded:.0f} MiB with a cache of 8 MiB, "
          f"{unbounded:.0f} with one of 1024, {prepared:.0f} to prepare")  # fmt: skip
    assert bounded < 20
    assert unbounded > 60  # So one would see it.
    assert is_prepared(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"]["frames"] == NUM_VIDEOS * NUM_FRAMES
    assert prepared < 40
    from_shards = growth_mib(tmp_path / "out")
    print(f"{from_shards:.0f} MiB from the prepared folder")
    assert from_shards < 40
