"""A large folder costs no more memory than a few frames, to decode and to read."""

import tracemalloc

import numpy as np

from convlstm_jax.data.video.config import VideoConfig
from tests.data.video.film_files import write_video

NUM_FILMS, NUM_FRAMES, SIDE = 25, 20, 96


def test_memory_does_not_grow_with_the_folder(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(NUM_FILMS):
        film = rng.integers(0, 256, (NUM_FRAMES, 6, 6, 3), dtype=np.uint8)
        film = film.repeat(SIDE // 6, 1).repeat(SIDE // 6, 2)
        write_video(tmp_path / f"{number}.avi", film, "mpeg4", "yuv420p")
    config = VideoConfig(
        path=str(tmp_path), height=SIDE, width=SIDE, channels=3, split_by="time"
    )
    tracemalloc.start()
    train = config.sources(num_frames=4, seed=0).train
    for index in range(len(train)):
        train[index]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.5 * NUM_FILMS * NUM_FRAMES * SIDE * SIDE * 3
