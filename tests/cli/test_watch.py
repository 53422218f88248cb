"""Nowcasts of a folder to which composites are added, by an untrained network."""

import re
import shutil
from importlib.util import find_spec

import jax
import numpy as np
import pytest

from configs import radar_nowcasting
from convlstm_jax.cli import predict, watch
from convlstm_jax.cli.experiment import experiment
from convlstm_jax.errors import UserError
from convlstm_jax.metrics.baselines import missing_packages
from tests.composites import write_composites


@pytest.fixture(autouse=True)
def untrained(monkeypatch):
    def load(objective, experiment, workdir):
        return 0, objective.init(jax.random.key(0), (16, 16, 1))

    monkeypatch.setattr(predict, "load_variables", load)


@pytest.fixture
def composites(tmp_path):
    """The files of half an hour, which are not yet in the folder that is watched."""
    write_composites(tmp_path / "all", "201609281400", 7)
    (tmp_path / "radar").mkdir()
    return sorted((tmp_path / "all").iterdir())


def forecast(tmp_path, *, watched=True, output="out.npy", with_input=False, **fields):
    overrides = {
        "data.path": str(tmp_path / "radar"), "data.downsample": "2",
        "model.features": "2", "model.patch_size": "4", "task.num_input_frames": "2",
        "task.num_output_frames": "3",
    } | {name.replace("__", "."): value for name, value in fields.items()}  # fmt: skip
    predict.run(
        experiment(radar_nowcasting.get_config("quick"), overrides),
        workdir=tmp_path, input=tmp_path / "radar", output=tmp_path / output,
        num_frames=None, watch=watched, with_input=with_input,
    )  # fmt: skip


def watching(tmp_path, monkeypatch, *steps, **fields):
    """Watches the folder while each of some functions is called between two looks."""
    remaining = list(steps)

    def sleep(_):
        if not remaining:
            raise KeyboardInterrupt
        remaining.pop(0)()

    monkeypatch.setattr(watch.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        forecast(tmp_path, **fields)
    return sorted(path.name for path in tmp_path.glob("out*"))


def add(tmp_path, *files):
    return lambda: [shutil.copy(file, tmp_path / "radar") for file in files]


def idle():
    pass


def test_a_nowcast_for_each_new_composite(tmp_path, monkeypatch, composites, capsys):
    steps = [add(tmp_path, *composites[:2]), idle, add(tmp_path, composites[2]), idle]
    made = watching(tmp_path, monkeypatch, *steps, idle)
    assert made == ["out_201609281405.npy", "out_201609281410.npy"]
    assert np.load(tmp_path / made[0]).shape == (3, 18, 26, 1)
    said = capsys.readouterr().out
    assert len(re.findall(r"ready \d\.\d s after its composite was there", said)) == 2
    assert said.count("waiting: ") == 1 and "holds no radar composite" in said


def test_composites_that_come_at_once_get_a_nowcast_each(
    tmp_path, monkeypatch, composites
):
    steps = [add(tmp_path, *composites[:2]), idle, add(tmp_path, *composites[2:4])]
    made = watching(tmp_path, monkeypatch, *steps, idle, idle, idle)
    assert made == [f"out_2016092814{minute}.npy" for minute in ("05", "10", "15")]
    at_once = np.load(tmp_path / made[1])
    shutil.rmtree(tmp_path / "radar")
    (tmp_path / "radar").mkdir()
    add(tmp_path, *composites[:3])()
    forecast(tmp_path, watched=False)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), at_once)


def test_composites_after_a_gap_are_waited_for(
    tmp_path, monkeypatch, composites, capsys
):
    steps = [add(tmp_path, *composites[:2]), idle, add(tmp_path, *composites[5:])]
    made = watching(tmp_path, monkeypatch, *steps, idle, idle, idle)
    assert made == ["out_201609281405.npy", "out_201609281430.npy"]
    assert "waiting: " in capsys.readouterr().out  # For 14:30, 14:25 is alone.


def test_an_empty_folder_is_said(tmp_path, monkeypatch, capsys):
    fields = {"data__radar_format": "picture"}
    (tmp_path / "radar").mkdir()
    assert not watching(tmp_path, monkeypatch, idle, **fields)
    assert capsys.readouterr().out.count("radar' holds no composite") == 1


def test_a_file_that_is_still_written_is_waited_for(
    tmp_path, monkeypatch, composites, capsys
):
    newest, whole = tmp_path / "radar" / composites[2].name, composites[2].read_bytes()

    def grow(count):
        return lambda: newest.write_bytes(whole[:count])

    steps = [add(tmp_path, *composites[:2]), grow(40), grow(50), idle, idle]
    made = watching(tmp_path, monkeypatch, *steps, grow(None), idle)
    assert made == ["out_201609281405.npy", "out_201609281410.npy"]
    assert capsys.readouterr().out.count("cannot be read") == 1  # Said once.


def test_a_file_that_stays_damaged_is_passed_over(
    tmp_path, monkeypatch, composites, capsys
):
    def damage():
        (tmp_path / "radar" / composites[2].name).write_bytes(b"P5")

    def later():
        now = watch.time.monotonic() + 301
        monkeypatch.setattr(watch.time, "monotonic", lambda: now)

    steps = [add(tmp_path, *composites[:2]), idle, damage, idle, idle]
    fields = {"data__bad_files": "skip"}
    before = watching(tmp_path, monkeypatch, *steps, **fields)
    assert before == ["out_201609281405.npy"]
    (tmp_path / before[0]).unlink()
    assert not watching(tmp_path, monkeypatch, idle, idle, **fields)
    made = watching(tmp_path, monkeypatch, idle, later, idle, idle, **fields)
    assert made == before
    assert f"passed over, as it cannot be read: '{composites[2].name}'" in (
        capsys.readouterr().out
    )


def test_the_newest_file_is_damaged(tmp_path, composites, capsys):
    add(tmp_path, *composites[:3])()
    (tmp_path / "radar" / composites[3].name).write_bytes(b"P5")
    with pytest.raises(UserError, match="cannot be read"):
        forecast(tmp_path, watched=False)
    forecast(tmp_path, watched=False, data__bad_files="skip")
    said = capsys.readouterr().out
    assert "the 15 minutes after 2016-09-28 14:10" in said and "left out: " in said
    assert re.search(r"step 0, in \d+\.\d s\n", said)


@pytest.mark.skipif(bool(missing_packages()), reason="needs pysteps")
def test_one_missing_composite_prevents_nothing(tmp_path, composites, capsys):
    add(tmp_path, composites[0], composites[2])()
    forecast(tmp_path, watched=False, data__time_step_minutes="5")
    assert "(filled by advection: 1)" in capsys.readouterr().out


def test_without_pysteps_a_missing_composite_is_said(tmp_path, monkeypatch, composites):
    monkeypatch.setattr(predict, "missing_packages", lambda: ["pysteps"])
    add(tmp_path, composites[0], composites[2])()
    with pytest.raises(UserError, match="ends with 1 composites that are 5 minutes"):
        forecast(tmp_path, watched=False, data__time_step_minutes="5")


def test_nowcasts_of_an_ensemble(tmp_path, monkeypatch, composites, capsys):
    two = add(tmp_path, *composites[:2])
    made = watching(tmp_path, monkeypatch, two, idle, task__num_members="3")
    assert made == ["out_201609281405.npy"]
    found = np.load(tmp_path / made[0])
    assert found.shape == (3, 18, 26, 3)
    assert len({found[..., member].tobytes() for member in range(3)}) == 3
    assert "3 frames of 3 members, the 15 minutes" in capsys.readouterr().out
    forecast(tmp_path, watched=False, with_input=True, task__num_members="3")
    both = np.load(tmp_path / "out.npy")
    np.testing.assert_array_equal(both[2:], found)
    for member in range(3):
        np.testing.assert_array_equal(both[:2, ..., member], both[:2, ..., 0])


@pytest.mark.skipif(not find_spec("rasterio"), reason="needs rasterio")
def test_a_map_of_composites_without_a_place(tmp_path, composites, capsys):
    add(tmp_path, *composites)()
    forecast(tmp_path, watched=False, output="out.tif")
    assert "the projection is not known, so the places" in capsys.readouterr().out


def test_only_composites_are_watched(tmp_path):
    config = experiment(radar_nowcasting.get_config("quick"), {})
    with pytest.raises(UserError, match="--watch is for models of radar composites"):
        predict.run(
            config, workdir=tmp_path, input=tmp_path / "a", output=tmp_path / "b.npy",
            num_frames=1, watch=True,
        )  # fmt: skip
