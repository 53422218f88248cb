"""Gives readers damaged files and the config odd values, within memory and time.

    python -m tests.survival.fuzz TARGET EXAMPLES SEED

Whatever a file holds, a reader returns or raises a `UserError` of one line.
"""

import gzip
import json
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import zipfile
from pathlib import Path

import h5py
import hypothesis
import numpy as np
from hypothesis import strategies as st

from convlstm_jax.errors import UserError

_MAX_BYTES = 6 * 2**30  # Of addresses, most of them those of libraries.
_MAX_SECONDS = 20
_EDITS = ("flip", "delete", "insert", "repeat", "number", "zeros", "ones")
_VALUE = re.compile(rb'(?<=[":= ])(?:-?\d+|"[^"]*"|\[\]|null)')  # Of text or JSON.
_ODD = (b"-1", b"0", b"1e999", b"99999999999999999999", b"null", b"[]", b'"x"', b"{}",
        b"NaN", b"1.5", b"true", b"\xff")  # fmt: skip


@st.composite
def edits(draw):
    """What to do to a file: (kind, place, content) up to four times."""
    place = st.floats(0, 1, exclude_max=True)
    one = st.tuples(st.sampled_from(_EDITS), place, st.binary(max_size=8))
    return draw(st.lists(one, min_size=1, max_size=4))


def edited(content, todo):
    """The content after some edits."""
    for kind, place, payload in todo:
        at = int(place * len(content))
        length = 1 + len(payload) ** 2
        if kind == "flip" and content:
            bit = 1 << (len(payload) % 8)
            content = content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
        elif kind == "delete":
            content = content[:at] + content[at + length :]
        elif kind == "insert":
            content = content[:at] + payload + content[at:]
        elif kind == "repeat":
            content = content[:at] + content[at : at + length] + content[at:]
        elif kind == "number":
            if found := _VALUE.search(content, at):
                odd = _ODD[sum(payload) % len(_ODD)]
                content = content[: found.start()] + odd + content[found.end() :]
        else:
            value = b"\0" if kind == "zeros" else b"\xff"
            content = content[:at] + value * length + content[at + length :]
    return content


def frames_of(path):
    from convlstm_jax.data.video.film import decode
    from convlstm_jax.data.video.fit import FrameSettings

    shapes = set()
    settings = FrameSettings(8, 8, 1, value_range=(0.0, 255.0))
    decode(path, settings, lambda frame, mask: shapes.add((frame.shape, frame.dtype)))
    assert shapes == {((8, 8, 1), np.dtype(np.uint8))}


def idx(folder):
    from convlstm_jax.data.synthetic.digits import read_idx_images

    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    content = struct.pack(">4I", 2051, *images.shape) + images.tobytes()
    (folder / "a").write_bytes(content)
    (folder / "b.gz").write_bytes(gzip.compress(content))
    return [folder / "a", folder / "b.gz"], read_idx_images


def cvat(folder):
    from convlstm_jax.data.video.cvat import check_frames, event_frames, read_cvat
    from tests.data.video.test_cvat import EXPORT

    (folder / "a.xml").write_text(EXPORT)

    def read(path):
        found = read_cvat(path)
        json.dumps(found.as_json())
        check_frames(found, 40)
        assert len(event_frames(found, ["theft"])) <= 42

    return [folder / "a.xml"], read


def prepared(folder):
    from convlstm_jax.data.video.config import VideoConfig
    from tests.data.video.film_files import grey_pixels

    (folder / "films").mkdir()
    for name in "abc":
        np.save(folder / "films" / f"{name}.npy", grey_pixels(12, 8, 8, ord(name)))
    out = folder / "out"
    VideoConfig(path=str(folder / "films"), height=8, width=8).prepare(out)

    def clips():
        sources = VideoConfig(path=str(out), height=8, width=8).sources(
            num_frames=3, seed=0
        )
        splits = (sources.train, sources.validation, sources.test)
        return [clip["frames"] for split in splits for clip in split]

    expected = clips()

    def read(path):
        np.testing.assert_array_equal(clips(), expected)

    return [out / "manifest.json", *sorted(out.glob("frames/*/*"))], read


def annotated(folder):
    from convlstm_jax.data.video.annotated import AnnotatedVideoConfig
    from tests.annotated_films import write_annotated_films

    write_annotated_films(folder / "films", height=8, width=20)
    out = folder / "out"
    fields = {"height": 8, "width": 8, "event_labels": ("theft",)}
    AnnotatedVideoConfig(path=str(folder / "films"), **fields).prepare(out)

    def labels():
        config = AnnotatedVideoConfig(path=str(out), **fields)
        return [clip["label"] for clip in config.sources(num_frames=4, seed=0).train]

    expected = labels()

    def read(path):
        assert labels() == expected

    return [out / "manifest.json"], read


def keras(folder):
    from convlstm_jax.interop.keras_files import read
    from tests.interop.keras_layout import (
        config_of,
        layers_of,
        write_keras,
        write_legacy,
        write_weights,
    )
    from tests.interop.keras_networks import SQUARES

    layers = layers_of(SQUARES)
    config = config_of(layers, SQUARES)
    write_keras(folder / "a.keras", layers, config)
    write_weights(folder / "b.weights.h5", layers)
    write_legacy(folder / "c.h5", layers, config)
    with zipfile.ZipFile(folder / "a.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def read_all(path):
        if path.suffix == ".json":  # Damaged before it was packed.
            with zipfile.ZipFile(folder / "d.keras", "w") as archive:
                for name, content in members.items():
                    damaged = path.read_bytes() if name == "config.json" else content
                    archive.writestr(name, damaged)
            path = folder / "d.keras"
        read(path)

    (folder / "config.json").write_bytes(members["config.json"])
    return [p for p in sorted(folder.iterdir()) if p.name != "d.keras"], read_all


def arrays(folder):
    frames = np.random.default_rng(0).integers(0, 256, (6, 8, 9), np.uint8)
    np.save(folder / "a.npy", frames)
    np.save(folder / "b.npy", np.asfortranarray(frames / np.float32(255)))
    np.savez(folder / "c.npz", frames=frames)
    np.savez_compressed(folder / "d.npz", frames=frames / 255)
    with h5py.File(folder / "e.nc", "w") as file:
        for name, size in zip("tyx", frames.shape, strict=True):
            file[name] = np.arange(float(size))
            file[name].make_scale(name)
        file["rain"] = frames / np.float32(255)
        for axis, name in enumerate("tyx"):
            file["rain"].dims[axis].attach_scale(file[name])
    return sorted(folder.iterdir()), frames_of


def films(folder):
    from tests.data.video.film_files import grey_pixels, write_stack, write_video

    pixels = grey_pixels(6, 16, 16)
    for name in ("a.gif", "b.tif", "c.webp", "d.png"):
        write_stack(folder / name, pixels)
    write_video(folder / "e.mp4", pixels, "mpeg4", "yuv420p")
    write_video(folder / "f.avi", pixels, "ffv1", "gray")
    write_video(folder / "g.mkv", pixels, "mpeg4", "yuv420p")
    return sorted(folder.iterdir()), frames_of


def radar(folder):
    from convlstm_jax.data.radar.config import RadarConfig
    from convlstm_jax.data.radar.formats import read_rain
    from tests.data.radar_files import random_bytes, write_knmi, write_odim

    write_odim(folder / "odim_hdf5.h5", random_bytes(1))
    write_knmi(folder / "knmi_hdf5.h5", random_bytes(2), "REFLECTIVITY_[DBZ]")

    def read(path):
        config = RadarConfig(radar_format=path.stem)
        assert read_rain(path, config)[0].ndim == 2

    return sorted(folder.iterdir()), read


def check(target, num_examples, seed):
    """Damages each file of a target, as often as asked for in all."""
    folder = Path(tempfile.mkdtemp())
    paths, read = target(folder)
    contents = {path: path.read_bytes() for path in paths}
    counts = {"read": 0, "refused": 0}
    for path in paths:
        read(path)  # Undamaged.

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=num_examples, deadline=None, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(st.sampled_from(paths), edits())
    def damage(path, todo):
        path.write_bytes(edited(contents[path], todo))
        signal.alarm(_MAX_SECONDS)
        try:
            read(path)
            counts["read"] += 1
        except UserError as error:
            assert str(error) and "\n" not in str(error), error
            counts["refused"] += 1
        finally:
            signal.alarm(0)
            path.write_bytes(contents[path])

    try:
        damage()
    finally:
        shutil.rmtree(folder)
    print(f"{target.__name__}: {counts}")


def config(num_examples, seed):
    """Odd values for every field, on the command line."""
    from convlstm_jax.cli import config_file
    from convlstm_jax.cli.experiment import experiment, leaves

    names = ("moving_mnist", "bubbles", "radar_nowcasting", "clip_classification",
             "moving_mnist_recurrent", "moving_mnist_autoencoder")  # fmt: skip
    configs = {name: config_file.load(f"{name}:quick") for name in names}
    fields = {name: sorted(leaves(found)) for name, found in configs.items()}
    numbers = st.one_of(st.integers(0, 300), st.integers(), st.floats()).map(str)
    values = st.one_of(
        numbers, st.text(max_size=12), st.lists(numbers, max_size=4).map(",".join),
        st.sampled_from(["", "()", "None", "true", "nan", "-0", "1e400", "[[]]"]),
    )  # fmt: skip
    counts = {"valid": 0, "refused": 0}

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=num_examples, deadline=None, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(st.data())
    def override(data):
        name = data.draw(st.sampled_from(names))
        one = st.sampled_from(fields[name])
        changes = data.draw(st.dictionaries(one, values, min_size=1, max_size=2))
        try:
            experiment(configs[name], changes)
            counts["valid"] += 1
        except UserError:
            counts["refused"] += 1

    override()
    print(f"config: {counts}")


TARGETS = {
    one.__name__: one
    for one in (idx, cvat, prepared, annotated, keras, arrays, films, radar)
}


def main(name, num_examples, seed):
    """Runs one target."""
    import warnings

    warnings.simplefilter("ignore")
    if name == "config":
        config(num_examples, seed)
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_BYTES, _MAX_BYTES))

    def too_long(*_):
        raise TimeoutError(f"it took more than {_MAX_SECONDS} s")

    signal.signal(signal.SIGALRM, too_long)
    check(TARGETS[name], num_examples, seed)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
