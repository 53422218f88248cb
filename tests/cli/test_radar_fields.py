"""What the fields of nowcasting allow, and ask of each other."""

import re

import pytest

from configs import base, radar_nowcasting
from convlstm_jax.cli.rules import Numbers
from convlstm_jax.cli.validate import find_problems


def problems(config, **fields):
    config.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in fields.items()}
    )
    return find_problems(config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data__name": "bubbles"}, "data.name is 'bubbles': it must be 'rain_cells'"),
        ({"data__channels": 3}, "channels is 3: it must be 1 with .*'nowcast'"),
        ({"data__dbz_min": 60.0}, "dbz_min and config.data.dbz_max are 60 and 60"),
        (
            {"data__test_conditions": ("2017-05-09",)},
            r"test_conditions is .*must be \(\)",
        ),
        ({"task__loss": "mse_sum"}, "task.loss is 'mse_sum': it must be another"),
        (
            {"task__rain_weights": (2.0, 3.0)},
            r"rain_weights is \(2.0, 3.0\): it must h",
        ),
        ({"eval__rain_thresholds": (5.0, 1.0)}, "rain_thresholds.*in rising order"),
        ({"eval__fss_window_sizes": (4,)}, "fss_window_sizes.*odd integers"),
        ({"data__no_data_value": 256}, "no_data_value is 256.*from 0 to 255"),
        ({"data__zr_b": 0.0}, "zr_b is 0.0.*above 0"),
        ({"data__path": "no/folder"}, "path is .*: it must be an existing folder of r"),
        ({"data__radar_format": "odim"}, "'odim': it must be one of 'picture', 'odim_"),
        (
            {"data__radar_format": "odim_hdf5"},
            "'odim_hdf5': it must be 'picture' without config.data.path and config.ta",
        ),
    ],
)
def test_what_nowcasting_does_not_allow(fields, message):
    (problem,) = problems(radar_nowcasting.get_config("quick"), **fields)
    assert re.search(message, problem), problem


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data__name": "rain_cells"}, "'rain_cells': it must not be 'rain_cells'"),
        ({"data__symmetries": True}, "symmetries is True: it must be False"),
        ({"data__zoom": 1.5}, "zoom is 1.5: it must be 1 with config.task.name="),
        (
            {"data__radar_format": "mch_gif", "data__path": "."},
            "'mch_gif': it must be 'picture' without .* config.task.name='nowcast'",
        ),
        ({"task__from_last_frame": True}, "from_last_frame is True: it must be False"),
        ({"task__loss": "b_mae"}, "loss is 'b_mae': it must be another.*no rain"),
    ],
)
def test_what_only_nowcasting_allows(fields, message):
    (problem,) = problems(base.get_config(), **fields)
    assert re.search(message, problem), problem


def test_a_folder_of_composites_has_dates_to_hold_out_and_no_other_condition(tmp_path):
    config = radar_nowcasting.get_config("quick")
    fields = {"data__path": str(tmp_path), "data__test_conditions": ("2017-05-09",)}
    assert problems(config, **fields) == []
    (problem,) = problems(config, data__condition="folder")
    assert "config.data.condition is 'folder': it must be ''" in problem


@pytest.mark.parametrize(
    ("field", "value", "default"),
    [("dbz_gain", 0.4, "0.5"), ("dbz_offset", 0.0, "-32"), ("no_data_value", 0, "255")],
)
def test_what_files_say_themselves_is_not_set(field, value, default, tmp_path):
    config = radar_nowcasting.get_config("quick")
    path = {"data__path": str(tmp_path)}
    assert problems(config, data__radar_format="odim_hdf5", **path) == []
    (problem,) = problems(config, **{f"data__{field}": value})
    assert problem == (
        f"config.data.{field} is {value:g}: it must be {default} with "
        "config.data.radar_format='odim_hdf5', whose files say it themselves"
    )
    assert problems(config, data__radar_format="picture") == []


@pytest.mark.parametrize("text", ["(0.5,2,5)", "[0.5, 2, 5]", "0.5,2,5,"])
def test_numbers_are_read_with_and_without_brackets(text):
    assert Numbers(above=0).parse(text) == (0.5, 2.0, 5.0)
    assert Numbers(above=0).accepts(Numbers(above=0).parse(text))


@pytest.mark.parametrize("value", [(), (0.0, 1.0), (1.0, 1.0), ("a",), [1.0], 2.0])
def test_numbers_that_are_none(value):
    assert not Numbers(above=0).accepts(value)
