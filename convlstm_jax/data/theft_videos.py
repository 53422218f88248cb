"""A small set of annotated surveillance videos, written by the program itself.

For trying the clip classifier with nothing at hand: the videos and their CVAT files
are written into a folder once and then read like anybody's own.
"""

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import av
import numpy as np

from convlstm_jax.data.cvat import Annotations, write_cvat
from convlstm_jax.data.labelled_clips import labelled_clips_sources
from convlstm_jax.data.shop_film import EVENT_LABEL, Deed, make_film
from convlstm_jax.data.sources import Sources
from convlstm_jax.errors import UserError

VERSION = 1
"""Goes into the folder's name; to be raised whenever other films would be drawn."""

NUM_VIDEOS = 120

_SMALLEST = 32
_MANIFEST = "manifest.json"
# Half of the films are thefts, and every other kind is as frequent as the next.
_DEEDS: tuple[Deed, ...] = ("theft", "restock", "theft", "touch", "theft", "pass")
_FRAMES_PER_SECOND = 12


def theft_videos_sources(
    *,
    num_frames: int,
    seed: int,
    height: int = 64,
    width: int = 64,
    channels: int = 3,
    frame_stride: int = 1,
    clip_stride: int = 0,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.2,
    num_train_sequences: int = 10_000_000,
    num_validation_sequences: int = 10_000_000,
    num_test_sequences: int = 10_000_000,
    folder: str = "",
) -> Sources:
    """Clips of the drawn surveillance videos, with the classes "normal" and "theft".

    All arguments but these are those of `labelled_clips_sources`.

    Args:
      num_frames: frames per clip.
      seed: see there.
      height: H of the videos drawn, at least 32.
      width: W of the videos drawn, at least 32 and at least 2/3 of H.
      channels: see there.
      frame_stride: see there.
      clip_stride: see there.
      validation_fraction: see there.
      test_fraction: see there.
      num_train_sequences: see there.
      num_validation_sequences: see there.
      num_test_sequences: see there.
      folder: where the videos are, or are to be written; empty for one in
        ~/.cache/convlstm_jax or, where that cannot be written, in the system's folder
        for temporary files.

    Returns:
      The splits.

    Raises:
      UserError: an argument is out of its range, or the folder cannot be written.
    """
    if min(height, width) < _SMALLEST or 2 * height > 3 * width:
        raise UserError(
            f"height and width are {height} and {width}, but the drawn videos must be "
            f"at least {_SMALLEST} pixels either way and at most 3/2 as high as wide."
        )
    path = (
        write_theft_videos(folder, height=height, width=width)
        if folder
        else _write_to_cache(height, width)
    )
    sources = labelled_clips_sources(
        path=str(path),
        event_labels=(EVENT_LABEL,),
        num_frames=num_frames,
        seed=seed,
        height=height,
        width=width,
        channels=channels,
        frame_stride=frame_stride,
        clip_stride=clip_stride,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        num_train_sequences=num_train_sequences,
        num_validation_sequences=num_validation_sequences,
        num_test_sequences=num_test_sequences,
    )
    description = f"Surveillance videos drawn by the program: {sources.description}"
    return replace(sources, description=description)


def write_theft_videos(
    folder: str | Path, *, height: int, width: int, num_videos: int = NUM_VIDEOS
) -> Path:
    """Writes the videos and their annotations, unless they are there already.

    The folder appears whole or not at all; one that is there but lacks a file, or
    holds one that was changed, is written anew.

    Args:
      folder: the folder; what is in it must have been written by this function.
      height: H, pixels.
      width: W, pixels.
      num_videos: how many; half of them hold a theft.

    Returns:
      The folder.

    Raises:
      UserError: the folder cannot be written, or holds something else.
    """
    folder = Path(folder).expanduser()
    asked = {
        "version": VERSION,
        "height": height,
        "width": width,
        "num_videos": num_videos,
    }
    if _is_whole(folder, asked):
        return folder
    if folder.exists() and not _was_written_here(folder):
        raise UserError(
            f"'{folder}' holds no videos of theft_videos, but other things; choose a "
            "folder that is empty or not there yet."
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(
            tempfile.mkdtemp(
                prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent
            )
        )
        try:
            _write(partial, asked)
            _put_in_place(partial, folder, asked)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except (OSError, av.FFmpegError) as error:
        reason = error.strerror or error
        raise UserError(
            f"'{folder}' cannot be written ({reason}); choose a folder that can be "
            "written to and has room."
        ) from error
    return folder


def _write_to_cache(height: int, width: int) -> Path:
    name = f"{VERSION}-{height}x{width}"
    size = {"height": height, "width": width, "num_videos": NUM_VIDEOS}
    try:
        cache = Path.home() / ".cache" / "convlstm_jax"
        return write_theft_videos(cache / "theft_videos" / name, **size)
    except (UserError, RuntimeError):  # RuntimeError: there is no home.
        user = os.getuid() if hasattr(os, "getuid") else ""
        cache = Path(tempfile.gettempdir()) / f"convlstm_jax-{user}"
        return write_theft_videos(cache / "theft_videos" / name, **size)


def _write(folder: Path, asked: dict[str, int]) -> None:
    """Writes everything, and last the manifest, which tells what everything is."""
    digests = {}
    for number in range(asked["num_videos"]):
        deed = _DEEDS[number % len(_DEEDS)]
        film = make_film(deed, number, asked["height"], asked["width"])
        video = folder / f"shop_{number:02d}.avi"
        _write_video(video, film.frames)
        length, height, width, _ = film.frames.shape
        annotations = Annotations(
            source=video.name,
            size=length,
            start_frame=0,
            stop_frame=length - 1,
            width=width,
            height=height,
            tracks=film.tracks,
        )
        write_cvat(video.with_suffix(".xml"), annotations)
        for file in (video, video.with_suffix(".xml")):
            digests[file.name] = _digest(file)
    manifest = asked | {"sha256": digests}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _write_video(path: Path, frames: np.ndarray) -> None:
    """Writes a video without loss, every frame of which can be read by itself."""
    with av.open(str(path), "w", options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=_FRAMES_PER_SECOND)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        stream.gop_size = 1
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _manifest(folder: Path) -> dict[str, object]:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _is_whole(folder: Path, asked: dict[str, int]) -> bool:
    manifest = _manifest(folder)
    digests = manifest.pop("sha256", None)
    if manifest != asked or not isinstance(digests, dict):
        return False
    try:
        return all(_digest(folder / name) == digests[name] for name in digests)
    except OSError:
        return False


def _was_written_here(folder: Path) -> bool:
    """Tells whether a folder may be replaced: nobody else's files are lost."""
    return folder.is_dir() and all(
        file.name == _MANIFEST
        or (file.name.startswith("shop_") and file.suffix in (".avi", ".xml"))
        for file in folder.iterdir()
    )


def _put_in_place(partial: Path, folder: Path, asked: dict[str, int]) -> None:
    partial.chmod(0o755)  # mkdtemp's folders are for their owner alone.
    if folder.exists():
        shutil.rmtree(folder)
    try:
        partial.rename(folder)
    except OSError:
        # Another process was faster; its files are as good if they are whole.
        if not _is_whole(folder, asked):
            raise
