"""Predicting from a folder of composites: what is refused, and before what work."""

import numpy as np
import pytest
from PIL import Image

from configs import radar_nowcasting
from convlstm_jax.cli import predict as predict_mode
from convlstm_jax.cli.experiment import experiment
from convlstm_jax.errors import UserError


def predict(tmp_path, *, output="out.npy", **fields):
    fields = {"data__path": str(tmp_path), **fields}
    overrides = {k.replace("__", "."): v for k, v in fields.items() if v is not None}
    predict_mode.run(
        experiment(radar_nowcasting.get_config("quick"), overrides),
        workdir=tmp_path / "none",
        input=tmp_path,
        output=tmp_path.parent / output,
        num_frames=3,
    )


def write(tmp_path, *sizes):
    for index, size in enumerate(sizes):
        picture = Image.fromarray(np.zeros(size, np.uint8))
        picture.save(tmp_path / f"2020010112{5 * index:02d}.png")


def test_too_few_composites(tmp_path):
    write(tmp_path, *[(8, 8)] * 3)
    with pytest.raises(UserError, match=r"ends with 3 composites.*at least \d+"):
        predict(tmp_path)


def test_composites_of_different_sizes(tmp_path):
    write(tmp_path, *[(8, 8)] * 7, (8, 12))
    with pytest.raises(UserError, match="composites of different sizes, from '2020"):
        predict(tmp_path)


def test_files_that_are_no_composites_of_a_time(tmp_path):
    write(tmp_path, *[(8, 8)] * 8)
    (tmp_path / "202001011235.png").rename(tmp_path / "map.png")
    with pytest.raises(UserError, match=r"has no time in its name.*'skip' such files"):
        predict(tmp_path)
    # Without it there are seven, so that the checkpoint is looked for.
    with pytest.raises(UserError, match="none"):
        predict(tmp_path, data__bad_files="skip")


def test_a_composite_without_data(tmp_path):
    write(tmp_path, *[(8, 8)] * 7)
    nothing = np.full((8, 8), 255, np.uint8)
    Image.fromarray(nothing).save(tmp_path / "202001011235.png")
    with pytest.raises(UserError, match=r"'202001011235\.png', has no data"):
        predict(tmp_path)


def test_a_format_that_cannot_be_read_here(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="'mch_gif', which cannot be read without py"):
        predict(tmp_path, data__radar_format="mch_gif")


@pytest.mark.parametrize(
    "fields", [{"model__peephole": "location"}, {"model__name": "fc_lstm"}]
)
def test_a_model_that_knows_crops_of_one_size_alone(tmp_path, fields):
    write(tmp_path, *[(8, 8)] * 8)
    with pytest.raises(UserError, match="cannot forecast the whole area"):
        predict(tmp_path, task__motion="none", **fields)


def test_a_map_of_frames_without_times(tmp_path):
    pytest.importorskip("rasterio")
    frames = tmp_path / "clip.npy"
    np.save(frames, np.zeros((8, 64, 64), np.float32))
    with pytest.raises(UserError, match=r"out\.tif is a map: --input must be a folder"):
        predict(frames, data__path=None, output="../out.tif")
