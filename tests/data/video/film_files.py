"""What tests of films share: pixels, files that hold them, and films opened."""

import av
import numpy as np
import pytest
from PIL import Image

from convlstm_jax.data.cache import FrameCache
from convlstm_jax.data.video.clips import open_films
from convlstm_jax.data.video.film import Film
from convlstm_jax.data.video.fit import FrameSettings
from convlstm_jax.errors import UserError

HEIGHT, WIDTH = 32, 48


def refuses(words):
    """Expects an error for the user."""
    return pytest.raises(UserError, match=words)


def grey_pixels(num_frames=30, height=HEIGHT, width=WIDTH, seed=11):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_frames, height, width), dtype=np.uint8)


def colour_pixels(num_frames=8):
    rng = np.random.default_rng(11)
    return rng.integers(0, 256, (num_frames, HEIGHT, WIDTH, 3), dtype=np.uint8)


def write_video(path, pixels, codec, pixel_format, **options):
    flags = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=flags) as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = pixel_format
        for frame in pixels:
            kind = "gray" if frame.ndim == 2 else "rgb24"
            if frame.dtype != np.uint8:
                kind = pixel_format
            picture = av.VideoFrame.from_ndarray(frame, format=kind)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def write_folder(folder, pixels, suffix=".png"):
    folder.mkdir(exist_ok=True, parents=True)
    for number, frame in enumerate(pixels):
        Image.fromarray(frame).save(folder / f"frame{number}{suffix}")
    return folder


def write_stack(path, pixels, **options):
    images = [Image.fromarray(frame) for frame in pixels]
    options = {"duration": 100} | options if path.suffix != ".tif" else options
    images[0].save(path, save_all=True, append_images=images[1:], **options)
    return path


def open_film(path, bad_files="refuse", height=HEIGHT, width=WIDTH, channels=1, **more):
    """A film with all its frames, decoded anew or from a cache beside it."""
    settings = FrameSettings(height, width, channels, **more)
    cache = FrameCache(path.parent / ".cache")
    (film,) = open_films([Film(path.name, path)], settings, bad_files, cache)
    return film


def frames_of(path, **settings):
    film = open_film(path, **settings)
    return film.read(0, film.num_frames)
