"""Folders of composites in the formats of weather services, and what they need."""

import importlib.util
import pickle
from datetime import datetime, timedelta

import numpy as np
import pytest

from convlstm_jax.data.radar import radar_sources
from convlstm_jax.data.radar_events import find_composites
from convlstm_jax.data.radar_formats import RADAR_FORMATS, radar_format_of
from convlstm_jax.errors import UserError
from tests.data.radar_files import SCALE, level, random_bytes, reader, write_odim

HELD_OUT = {"test_conditions": ("2017-05-09",), "validation_fraction": 0.3}


def write_series(folder, start, count, minutes=15):
    """Composites as OPERA names them."""
    folder.mkdir()
    frames = np.stack([random_bytes(index, (8, 10), 64) for index in range(count)])
    for index, raw in enumerate(frames):
        time = datetime.strptime(start, "%Y%m%d%H%M")
        time += timedelta(minutes=minutes * index)
        write_odim(folder / f"T_PAAH21_C_EUOC_{time:%Y%m%d%H%M}00.hdf", raw)
    return frames


def sources(path, **fields):
    return radar_sources(
        path=str(path),
        num_frames=3,
        height=8,
        width=10,
        clip_stride=1,
        time_step_minutes=15.0,
        radar_format="odim_hdf5",
        scale=SCALE,
        num_train_sequences=10_000,
        num_validation_sequences=10_000,
        num_test_sequences=10_000,
        **fields,
    )


def test_a_folder_of_odim_composites(tmp_path, pysteps):
    write_series(tmp_path / "a", "201609281445", 7)
    second = write_series(tmp_path / "b", "201705091045", 4)
    (tmp_path / "b" / "201705090000.png").write_bytes(b"of another format")
    found = sources(tmp_path, **HELD_OUT)
    assert "11 composites of 8x10 pixels" in found.description
    test = pickle.loads(pickle.dumps(found.test))
    clips = {clip["frames"].tobytes() for clip in (test[0], test[1])}
    levels = np.where(second == 255, 0, level(second / 2 - 32)).astype(np.uint8)
    assert clips == {levels[:3].tobytes(), levels[1:].tobytes()}


def test_bad_files_are_refused_or_left_out_and_counted(tmp_path, pysteps):
    write_series(tmp_path / "a", "201609281445", 10)
    write_series(tmp_path / "b", "201705091045", 4)
    cut, narrow, *_ = sorted((tmp_path / "a").iterdir())
    cut.write_bytes(cut.read_bytes()[:900])
    write_odim(narrow, random_bytes(1, (8, 9)))
    with pytest.raises(UserError, match=f"'{cut}' cannot be read as odim.*'skip' such"):
        sources(tmp_path, **HELD_OUT)
    write_odim(tmp_path / "a" / "latest.h5", random_bytes(1, (8, 10)))
    found = sources(tmp_path, bad_files="skip", **HELD_OUT)
    assert f"1 unreadable (first: '{cut}' cannot be read as odim" in found.description
    assert f"1 of another size (first: '{narrow}' has 8×9" in found.description
    assert "1 without a time (first: " in found.description
    assert "12 composites of 8x10 pixels" in found.description


def test_mch_names_have_the_day_of_the_year(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    for name in ("AQC162721445F_00005.801", "AQC163991445F", ".AQC162721450F"):
        (tmp_path / f"{name}.gif").write_bytes(b"")
    (tmp_path / "AQC162721455F.png").write_bytes(b"")
    (composite,), left_out = find_composites(tmp_path, "mch_gif")
    assert composite.time == datetime(2016, 9, 28, 14, 45)
    ((sentence,),) = left_out.values()
    assert "AQC163991445F.gif' has no time in its name, year to minute in" in sentence
    assert sentence.endswith("or year, day of the year, hour and minute in 9")


@pytest.mark.parametrize(
    ("radar_format", "missing", "named"),
    [
        ("odim_hdf5", {"pysteps", "pyproj"}, "pysteps and pyproj"),
        ("odim_hdf5", {"pyproj"}, "pyproj"),
        ("knmi_hdf5", {"pysteps"}, "pysteps"),
        ("mch_gif", {"pysteps"}, "pysteps"),
        ("bom_rf3", {"netCDF4"}, "netCDF4"),
    ],
)
def test_missing_packages_are_named_before_any_work(
    radar_format, missing, named, tmp_path, monkeypatch
):
    """Before the folder is looked at, which is not even there."""
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in missing else name
    )
    message = (
        f"^radar_format is '{radar_format}', which cannot be read without {named}: "
        r"run `pip install -r requirements-radar\.txt`\.$"
    )
    with pytest.raises(UserError, match=message):
        find_composites(tmp_path / "none", radar_format)
    with pytest.raises(UserError, match=message):
        reader(radar_format)


def test_pictures_need_nothing_more(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert radar_format_of("picture") is RADAR_FORMATS["picture"]
    assert reader("picture").radar_format == "picture"


def test_formats_that_there_are_not():
    with pytest.raises(UserError, match="radar_format is 'x', but must be one of pict"):
        radar_format_of("x")
