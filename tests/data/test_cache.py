"""The cache of decoded frames: whole entries or none, whatever ends a process."""

import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from convlstm_jax import waiting
from convlstm_jax.data import cache
from convlstm_jax.data.cache import CacheError, FrameCache, default_cache, entry_name
from convlstm_jax.data.files import content_hash
from convlstm_jax.errors import UserError

H, W = 4, 6


def film(seed=0, num_frames=5, channels=2):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_frames, H, W, channels), dtype=np.uint8)


def producer(frames, masks=None, made=None):
    def produce(writer):
        if made is not None:
            made.append(1)
        for number, frame in enumerate(frames):
            writer.add(frame, None if masks is None else masks[number])
        return {"rate": 25}

    return produce


def test_frames_are_produced_once_and_read_by_slices(tmp_path):
    frames, made = film(), []
    for _ in range(2):
        store = FrameCache(tmp_path / "a")
        found = store.cached({"film": 1}, producer(frames, made=made))
        assert len(found) == 5 and found.shape == (5, H, W, 2) and not found.masked
        assert found.extra == {"rate": 25}
        np.testing.assert_array_equal(found.read(0, 5), frames)
        np.testing.assert_array_equal(found.read(1, 2, 3), frames[1::3])
        np.testing.assert_array_equal(found.read_mask(0), np.ones((1, H, W, 1)))
    assert made == [1]
    copy = pickle.loads(pickle.dumps(found))
    copy.read(0)[:] = 0  # The caller's own.
    np.testing.assert_array_equal(copy.read(0)[0], frames[0])
    for start, count, stride in ((-1, 1, 1), (0, 6, 1), (0, 3, 3), (0, 0, 1)):
        with pytest.raises(IndexError):
            found.read(start, count, stride)
    store.cached({"film": 2}, producer(frames, made=made))
    assert made == [1, 1]


def test_masks(tmp_path):
    masks = film(1)[..., :1] > 99
    found = FrameCache(tmp_path).cached({"a": 1}, producer(film(), masks))
    assert found.masked
    np.testing.assert_array_equal(found.read_mask(1, 2, 2), masks[1:4:2])


def test_damage_is_told_and_mended(tmp_path):
    store, made = FrameCache(tmp_path), []
    found = store.cached({"a": 1}, producer(film(), made=made))
    content = bytearray((found.folder / "frames.npy").read_bytes())
    content[128 + 2 * H * W * 2] ^= 1
    (found.folder / "frames.npy").write_bytes(content)
    cache._opened.cache_clear()
    found.read(0, 2)
    with pytest.raises(
        CacheError, match=r"cannot be read \(frame 2 has changed\): rem"
    ):
        found.read(0, 3)
    (found.folder / "frames.npy").write_bytes(content[:-1])
    cache._opened.cache_clear()
    again = store.cached({"a": 1}, producer(film(), made=made))
    np.testing.assert_array_equal(again.read(0, 5), film())
    assert made == [1, 1]


def test_what_fails_leaves_nothing(tmp_path):
    def fail(writer):
        writer.add(film()[0])
        raise UserError("a bad film")

    store = FrameCache(tmp_path)
    with pytest.raises(UserError, match="a bad film"):
        store.cached({"a": 1}, fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".in_use", ".locks"]
    assert store.find(entry_name({"a": 1})) is None


def test_least_recently_used_entries_make_room_but_not_those_in_use(tmp_path):
    size = film().nbytes
    old = FrameCache(tmp_path)
    for number in range(3):
        entry = old.cached({"a": number}, producer(film())).folder
        os.utime(entry / "entry.json", (number, number))
    total = sum(file.stat().st_size for file in entry.iterdir())
    limited = FrameCache(tmp_path, int(2.8 * total))
    with pytest.raises(
        CacheError, match=r"take more than the .* GB .*CONVLSTM_CACHE_G"
    ):
        limited.cached({"b": 0}, producer(film()))
    del old, entry  # As when its process ends.
    gc.collect()
    limited.cached({"b": 0}, producer(film()))
    there = [limited.find(entry_name({"a": number})) for number in range(3)]
    assert [one is not None for one in there] == [False, False, True]
    with pytest.raises(CacheError, match="take more than"):
        FrameCache(tmp_path, size - 1).cached({"b": 1}, producer(film()))


SCRIPT = """
import sys, time
from pathlib import Path
import numpy as np
from convlstm_jax.data.cache import FrameCache
def produce(writer):
    for number in range(40):
        writer.add(np.full((4, 6, 2), number, np.uint8))
        time.sleep(float(sys.argv[2]))
    return {}
print("began", flush=True)
frames = FrameCache(Path(sys.argv[1])).cached({"a": 1}, produce)
assert (frames.read(0, 40)[:, 0, 0, 0] == range(40)).all()
print("done", flush=True)
"""


def start(folder, pause):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(pause)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_processes_and_one_that_is_killed(tmp_path):
    killed = start(tmp_path, 1)
    assert killed.stdout.readline() == "began\n"
    until = time.monotonic() + 60
    while not list(tmp_path.glob(".*.partial")) and time.monotonic() < until:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert list(tmp_path.glob(".*.partial"))
    assert FrameCache(tmp_path).find(entry_name({"a": 1})) is None
    both = [start(tmp_path, 0.005) for _ in range(2)]
    for process in both:
        assert process.communicate()[0].endswith("done\n")
    assert not list(tmp_path.glob(".*.partial"))
    assert len(FrameCache(tmp_path).find(entry_name({"a": 1}))) == 40


def test_a_full_disk_is_one_sentence(tmp_path):
    limit = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", limit + SCRIPT, str(tmp_path), "0"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1].endswith(
        f"CacheError: '{tmp_path}', the cache of decoded frames, cannot be written to "
        "(File too large): make room, or choose another folder with the environment "
        "variable CONVLSTM_CACHE_DIR (in --mode=prepare: --output)"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [".in_use", ".locks"]


def test_environment_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("CONVLSTM_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("CONVLSTM_CACHE_GB", "0.5")
    assert default_cache().folder == tmp_path
    assert default_cache() is default_cache()
    monkeypatch.setenv("CONVLSTM_CACHE_GB", "much")
    # No fault of a film, which bad_files=skip would leave out.
    with pytest.raises(CacheError, match=r"GB is 'much': it must be a number above 0$"):
        default_cache()


def test_the_hash_tells_every_change(tmp_path):
    file, index = tmp_path / "a.npy", tmp_path / "index"
    file.write_bytes(b"one")
    first = content_hash([file], index)
    assert content_hash([file], index) == first
    assert not index.exists()  # Too fresh to be trusted.
    os.utime(file, (1, 1))
    before = file.stat()
    file.write_bytes(b"two")  # As long, and said to be as old.
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = content_hash([file], index)
    assert second != first
    index.mkdir(exist_ok=True)
    (index / "junk.json").write_text("{")
    file.rename(tmp_path / "b.npy")
    assert content_hash([tmp_path / "b.npy"], index) != second


def test_a_hash_is_kept_while_the_file_stays(tmp_path, monkeypatch):
    file, index = tmp_path / "a.npy", tmp_path / "index"
    file.write_bytes(b"one")
    monkeypatch.setattr("convlstm_jax.data.files._SETTLED_SECONDS", -1)
    found = content_hash([file], index)
    (kept,) = index.iterdir()
    state, _ = json.loads(kept.read_text())
    kept.write_text(json.dumps([state, "known"]))
    assert content_hash([file], index) == "known"
    file.write_bytes(b"two!")
    assert content_hash([file], index) not in ("known", found)


def test_waiting_for_another_process_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(waiting, "SILENT_SECONDS", 0.1)
    one, other = FrameCache(tmp_path), FrameCache(tmp_path)
    frames = film()
    begun, go_on = threading.Event(), threading.Event()

    def slowly(writer):
        begun.set()
        assert go_on.wait(10)
        return producer(frames)(writer)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(one.cached, {"film": 1}, slowly)
        assert begun.wait(10)
        second = pool.submit(other.cached, {"film": 1}, producer(frames))
        end = time.monotonic() + 10
        while not caplog.messages and time.monotonic() < end:
            time.sleep(0.01)
        go_on.set()
        assert first.result().folder == second.result().folder
    (message,) = caplog.messages
    assert message == (
        f"waiting for another process, which decodes frames into '{tmp_path}'"
    )
