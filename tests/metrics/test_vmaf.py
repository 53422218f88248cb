"""VMAF as ffmpeg measures it: which clip is judged, what range, what sizes."""

import json
import os
import stat
import subprocess

import numpy as np
import pytest

from convlstm_jax.errors import UserError
from convlstm_jax.metrics import vmaf as module
from convlstm_jax.metrics.vmaf import find_ffmpeg, vmaf

FFMPEG = find_ffmpeg()
needs_ffmpeg = pytest.mark.skipif(
    FFMPEG is None, reason="imageio-ffmpeg with libvmaf is not installed"
)


def clips(shape=(4, 32, 40, 1)):
    """A moving texture, and the same with noise that grows from frame to frame."""
    generator = np.random.default_rng(0)
    texture = generator.random((8, 8)).repeat(8, axis=0).repeat(8, axis=1)
    target = np.stack([np.roll(texture, 2 * t, axis=1) for t in range(shape[0])])
    target = target[:, : shape[1], : shape[2], None].repeat(shape[3], axis=3)
    noise = generator.normal(size=target.shape)
    size = np.linspace(0.01, 0.2, shape[0])[:, None, None, None]
    return np.clip(target + size * noise, 0, 1), target


@needs_ffmpeg
@pytest.mark.parametrize("shape", [(4, 32, 40, 1), (3, 25, 33, 3), (1, 24, 24, 1)])
def test_more_noise_is_worse_and_the_same_is_best(shape):
    prediction, target = clips(shape)
    same = vmaf(FFMPEG, target, target)
    assert same.shape == shape[:1]
    assert same[0] > 95 and (same[1:] == 100).all()
    noisy = vmaf(FFMPEG, prediction, target)
    assert (noisy < same).all() and (noisy >= 0).all()
    assert shape[0] < 3 or noisy[-1] < noisy[1] - 10


@needs_ffmpeg
def test_the_prediction_is_the_one_that_is_judged():
    """VMAF is not symmetric: a blank film tells nothing, texture on blank is loud."""
    _, target = clips()
    blank = np.full_like(target, 0.5)
    assert vmaf(FFMPEG, blank, target).mean() < 20
    assert vmaf(FFMPEG, target, blank).mean() > 50


@needs_ffmpeg
def test_luma_is_handed_over_as_it_is(tmp_path):
    """The same figures as for a film of grey frames that are full range already."""
    prediction, target = clips((3, 32, 40, 1))
    found = vmaf(FFMPEG, prediction, target)
    command = [FFMPEG, "-v", "error"]
    for name, clip in (("p", prediction), ("t", target)):
        path = tmp_path / name
        path.write_bytes(np.rint(255 * clip).astype(np.uint8).tobytes())
        command += ["-f", "rawvideo", "-pix_fmt", "gray", "-s", "40x32", "-i", path]
    full = "scale=in_range=full:out_range=full,format=yuv444p"
    graph = f"[0]{full}[a];[1]{full}[b];[a][b]libvmaf=log_fmt=json:log_path=log"
    command += ["-lavfi", graph, "-f", "null", "-"]
    subprocess.run(command, check=True, cwd=tmp_path)
    frames = json.loads((tmp_path / "log").read_text())["frames"]
    expected = [frame["metrics"]["vmaf"] for frame in frames]
    np.testing.assert_allclose(found, expected, atol=1e-3)


@needs_ffmpeg
def test_colours_count_by_their_luma():
    prediction, target = clips((2, 24, 24, 1))
    red = [np.concatenate([x, 0 * x, 0 * x], axis=-1) for x in (prediction, target)]
    grey = vmaf(FFMPEG, 0.299 * prediction, 0.299 * target)
    np.testing.assert_allclose(vmaf(FFMPEG, *red), grey, atol=1e-6)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_a_failure_of_ffmpeg_is_told(tmp_path):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho first >&2\necho no such filter >&2\nexit 8\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    clip = np.zeros((1, 24, 24, 1))
    with pytest.raises(UserError, match=r"exit code 8, saying: no such filter\)"):
        vmaf(str(program), clip, clip)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_an_ffmpeg_without_libvmaf_is_none(monkeypatch, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho scale\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    assert module.find_ffmpeg.__wrapped__() is None
