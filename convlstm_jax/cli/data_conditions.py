"""What the fields on the data ask of each other, of the task and of the disk."""

import os
import re
from pathlib import Path
from typing import Any

from convlstm_jax.cli.condition import Conditions

CONDITIONS = Conditions()


# The one embedded data set of each task that has its own.
_NAMES_OF_TASKS = {"classify": "theft_videos", "nowcast": "rain_cells"}


def _draws_digits(name: str, path: str) -> bool:
    return name == "moving_mnist" and not path


@CONDITIONS.over("data.path", "task.name")
def _folder_is_there(path: str, task: str) -> str | None:
    there = Path(path).expanduser()
    one_video = task not in _NAMES_OF_TASKS and there.is_file()
    if not path or there.is_dir() or one_video:
        return None
    wanted = {
        "classify": "folder of videos and their annotations",
        "nowcast": "folder of radar composites",
    }.get(task, "folder of videos, arrays or pictures, or one video or array")
    return f"config.data.path is {path!r}: it must be an existing {wanted}, or ''"


@CONDITIONS.over("data.name", "data.path", "task.name")
def _clips_suit_the_task(name: str, path: str, task: str) -> str | None:
    suited = _NAMES_OF_TASKS.get(task)
    if path or name == suited:
        return None
    if suited is None and name not in _NAMES_OF_TASKS.values():
        return None
    wanted = f"be {suited!r}" if suited else f"not be {name!r}"
    return (
        f"config.data.name is {name!r}: it must {wanted} with config.task.name="
        f"{task!r}, unless config.data.path is set"
    )


@CONDITIONS.over("data.event_labels", "data.name", "data.path")
def _labels_of_the_own_films(
    labels: tuple[str, ...], name: str, path: str
) -> str | None:
    if path or name != "theft_videos" or labels == ("theft",):
        return None
    return (
        f"config.data.event_labels is {labels}: it must be ('theft',) with "
        "config.data.name='theft_videos', unless config.data.path is set"
    )


@CONDITIONS.over("data.channels", "data.name", "data.path", "task.name")
def _channels_there_are(channels: int, name: str, path: str, task: str) -> str | None:
    if channels == 1:
        return None
    if task == "nowcast":
        return (
            f"config.data.channels is {channels}: it must be 1 with "
            "config.task.name='nowcast', as a radar picture has one value a pixel"
        )
    if path or name == "theft_videos":
        return None
    return (
        f"config.data.channels is {channels}: it must be 1 with "
        f"config.data.name={name!r}, whose frames are grey"
    )


@CONDITIONS.over("data.condition", "data.path", "task.name")
def _condition_can_be_told(condition: str, path: str, task: str) -> str | None:
    if not condition:
        return None
    if not path or task in ("classify", "nowcast"):
        return (
            f"config.data.condition is {condition!r}: it must be '' without "
            "config.data.path and with config.task.name='classify' or 'nowcast'"
        )
    if condition == "folder":
        return None
    try:
        groups = re.compile(condition).groups
    except re.error as error:
        return (
            f"config.data.condition is {condition!r}, which is no regular expression "
            f"({error}): it must be one with one group, or 'folder', or ''"
        )
    if groups == 1:
        return None
    return (
        f"config.data.condition is {condition!r}, which has {groups} groups: it must "
        "be a regular expression with one group, or 'folder', or ''"
    )


@CONDITIONS.over(
    "data.test_conditions", "data.condition", "data.name", "data.path", "task.name"
)
def _conditions_to_hold_out(
    held_out: tuple[str, ...], condition: str, name: str, path: str, task: str
) -> str | None:
    has_conditions = name == "bubbles"
    if path:
        has_conditions = bool(condition) or task == "nowcast"
    if not held_out or (has_conditions and task != "classify"):
        return None
    return (
        f"config.data.test_conditions is {held_out}: it must be () where clips have no "
        "conditions, which are told by config.data.condition with config.data.path, "
        "or come with config.data.name='bubbles'"
    )


def _of_own_videos(field: str, default: Any, *tasks: str) -> None:
    """Registers that a field is left alone where no folder of videos is read."""

    @CONDITIONS.over(field, "data.path", "task.name")
    def check(value: Any, path: str, task: str) -> str | None:
        if value == default or (path and task not in tasks):
            return None
        also = " and with config.task.name=" if tasks else ""
        return (
            f"config.{field} is {value!r}: it must be {default!r} without "
            f"config.data.path{also}{' or '.join(map(repr, tasks))}"
        )


_of_own_videos("data.crop_box", (), "nowcast")
_of_own_videos("data.value_range", (), "classify", "nowcast")
_of_own_videos("data.variable", "", "classify", "nowcast")
_of_own_videos("data.split_by", "file", "classify", "nowcast")


@CONDITIONS.over("data.split_by", "data.condition")
def _conditions_to_split_by(split_by: str, condition: str) -> str | None:
    if split_by != "condition" or condition:
        return None
    return (
        "config.data.split_by is 'condition': it must not be with "
        "config.data.condition='', which gives the videos none"
    )


@CONDITIONS.over("data.radar_format", "data.path", "task.name")
def _radar_composites_are_read(radar_format: str, path: str, task: str) -> str | None:
    if radar_format == "picture" or (path and task == "nowcast"):
        return None
    return (
        f"config.data.radar_format is {radar_format!r}: it must be 'picture' without "
        "config.data.path and config.task.name='nowcast'"
    )


def _of_radar_pictures(field: str, default: float) -> None:
    """Registers that a field is left alone where the files themselves say as much."""

    @CONDITIONS.over(field, "data.radar_format")
    def check(value: float, radar_format: str) -> str | None:
        if value == default or radar_format == "picture":
            return None
        return (
            f"config.{field} is {value:g}: it must be {default:g} with "
            f"config.data.radar_format={radar_format!r}, whose files say it themselves"
        )


_of_radar_pictures("data.dbz_gain", 0.5)
_of_radar_pictures("data.dbz_offset", -32.0)
_of_radar_pictures("data.no_data_value", 255)


@CONDITIONS.over("data.dbz_min", "data.dbz_max")
def _reflectivities_can_be_told_apart(low: float, high: float) -> str | None:
    if low < high:
        return None
    return (
        f"config.data.dbz_min and config.data.dbz_max are {low:g} and {high:g}: the "
        "first must be below the second"
    )


@CONDITIONS.over("data.symmetries", "task.name")
def _symmetries_are_used(symmetries: bool, task: str) -> str | None:
    if not symmetries or task == "nowcast":
        return None
    return (
        "config.data.symmetries is True: it must be False with config.task.name="
        f"{task!r}, as 'nowcast' alone knows it"
    )


@CONDITIONS.over("data.zoom", "task.name")
def _zoom_is_used(zoom: float, task: str) -> str | None:
    if zoom == 1 or task == "nowcast":
        return None
    return (
        f"config.data.zoom is {zoom:g}: it must be 1 with config.task.name="
        f"{task!r}, as 'nowcast' alone knows it"
    )


@CONDITIONS.over("data.validation_fraction", "data.test_fraction")
def _something_is_left_to_learn_from(validation: float, test: float) -> str | None:
    if validation + test < 1:
        return None
    return (
        f"config.data.validation_fraction and config.data.test_fraction are "
        f"{validation:g} and {test:g}: together they must be below 1"
    )


def _room_for_a_digit(field: str) -> None:
    """Registers that a digit of 28 pixels fits into the frames."""

    @CONDITIONS.over(field, "data.name", "data.path")
    def check(size: int, name: str, path: str) -> str | None:
        if not _draws_digits(name, path) or size >= 28:
            return None
        return (
            f"config.{field} is {size}: it must be an integer of at least 28, the "
            "size of a digit in pixels"
        )


_room_for_a_digit("data.height")
_room_for_a_digit("data.width")


@CONDITIONS.over("data.digits_dir", "data.digits", "data.name", "data.path")
def _digits_are_there(digits_dir: str, digits: str, name: str, path: str) -> str | None:
    if not _draws_digits(name, path):
        return None
    if digits_dir:
        if Path(digits_dir).expanduser().is_dir():
            return None
        return (
            f"config.data.digits_dir is {digits_dir!r}: it must be an existing folder "
            "that holds the IDX files of MNIST"
        )
    folder = os.environ.get("CONVLSTM_MNIST_DIR")
    if folder and digits in ("idx", "auto") and not Path(folder).expanduser().is_dir():
        return (
            f"the environment variable CONVLSTM_MNIST_DIR is {folder!r}: it must be an "
            "existing folder that holds the IDX files of MNIST, or unset"
        )
    if digits == "idx" and not folder:
        return (
            "config.data.digits_dir is '': it must be the folder that holds the IDX "
            "files of MNIST, as config.data.digits is 'idx' and the environment "
            "variable CONVLSTM_MNIST_DIR is not set"
        )
    return None


@CONDITIONS.over("data.test_file", "data.name", "data.path")
def _test_file_is_there(test_file: str, name: str, path: str) -> str | None:
    if not test_file:
        return None
    if path:
        return (
            f"config.data.test_file is {test_file!r}: it must be '' with "
            f"config.data.path={path!r}, as it holds moving digits"
        )
    if name != "moving_mnist":
        return (
            f"config.data.test_file is {test_file!r}: it must be '' with "
            f"config.data.name={name!r}, as it holds moving digits"
        )
    if Path(test_file).expanduser().is_file():
        return None
    return (
        f"config.data.test_file is {test_file!r}: it must be an existing file in the "
        "format of mnist_test_seq.npy, or ''"
    )


@CONDITIONS.over("data.test_file", "data.height", "data.width")
def _test_file_size(test_file: str, height: int, width: int) -> str | None:
    if not test_file or (height, width) == (64, 64):
        return None
    return (
        f"config.data.height and config.data.width are {height} and {width}: both must "
        "be 64 with config.data.test_file, whose frames are 64x64"
    )


@CONDITIONS.over("data.test_file", "data.num_digits")
def _test_file_digits(test_file: str, num_digits: int) -> str | None:
    if not test_file or num_digits == 2:
        return None
    return (
        f"config.data.num_digits is {num_digits}: it must be 2 with "
        "config.data.test_file, whose frames have two digits"
    )


@CONDITIONS.over("data.test_file", "task.num_input_frames", "task.num_output_frames")
def _test_file_length(test_file: str, num_inputs: int, num_outputs: int) -> str | None:
    if not test_file or num_inputs + num_outputs <= 20:
        return None
    return (
        "config.task.num_input_frames and config.task.num_output_frames are "
        f"{num_inputs} and {num_outputs}: together they must be at most 20 with "
        "config.data.test_file, whose sequences have 20 frames"
    )
