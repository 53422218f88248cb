"""A folder of radar composites: its format, its time step and its events."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from convlstm_jax.data.cache import default_cache
from convlstm_jax.data.files import LeftOut, plural
from convlstm_jax.data.prepared import is_prepared, read_prepared
from convlstm_jax.data.radar.composites import (
    Composite,
    CompositeFile,
    decode,
    find_composites,
    found_format,
    split_at_gaps,
    time_step_of,
    usable_composites,
)
from convlstm_jax.data.radar.formats import RADAR_FORMATS, format_named, is_format
from convlstm_jax.data.radar.gaps import fill_gaps
from convlstm_jax.errors import UserError
from convlstm_jax.paths import local_path

if TYPE_CHECKING:
    from convlstm_jax.data.radar.config import RadarConfig


@dataclass(frozen=True, eq=False)
class Folder:
    """A folder whose composites are decoded.

    `config` is that of this folder alone, with its own path, format and time step;
    `runs` are composites without a missing time step, of which `missing` lie between;
    `filled` of those in runs are no measured ones.
    """

    config: "RadarConfig"
    composites: list[Composite]
    left_out: LeftOut
    runs: list[list[Composite]]
    missing: int
    filled: int

    def facts(self) -> str:
        """What the folder holds, in words."""
        config, (height, width) = self.config, self.composites[0].size
        facts = (
            f"'{config.path}' ({config.radar_format}): {len(self.composites)} of "
            f"{height}x{width} pixels of {self.composites[0].pixel_size_km:.3g} km"
        )
        if step := config.time_step_minutes:
            facts += f", {step:g} minutes apart"
            usual = time_step_of([one.time for one in self.composites])
            if usual and abs(usual - step) > step / 5:
                facts += f", but most of them {usual:g}"
        return facts


def look_into(
    folder: str, config: "RadarConfig"
) -> tuple["RadarConfig", list[CompositeFile], LeftOut]:
    """The config for one folder, with the format and the time step found; its files.

    Of a folder that --mode=prepare wrote none are returned.
    """
    if not local_path(folder).is_dir():
        raise UserError(f"path is '{folder}': it must be a folder of radar composites")
    files: list[CompositeFile] = []
    left_out = LeftOut(noun="composite")
    update: dict[str, Any] = {"path": folder}
    prepared = is_prepared(folder)
    if prepared:
        manifest, _ = read_prepared(folder, "radar", {})
        facts = [one for item in manifest.items for one in item.facts["composites"]]
        times = [datetime.fromisoformat(one["time"]) for one in facts]
    if config.radar_format == "auto":
        found = found_format(folder, config.file_pattern)
        if prepared:
            found = str(manifest.settings.get("radar_format", ""))
        if not is_format(found):
            raise UserError(
                f"the folder '{folder}' holds no radar composite of a format that "
                f"data.radar_format='auto' knows: {', '.join(RADAR_FORMATS)}"
            )
        update["radar_format"] = found
    if not prepared:
        of_format = config.model_copy(update=update)
        files, left_out = find_composites(folder, of_format)
        times = [one.time for one in files]
    step = time_step_of(times)
    ratio = step / (config.time_step_minutes or step or 1.0)
    if step and abs(ratio - max(round(ratio), 1)) > 0.1:
        raise UserError(
            f"the composites of '{folder}' are {step:g} minutes apart and "
            f"data.time_step_minutes is {config.time_step_minutes:g}: it must be that, "
            "or 0, which finds it"
        )
    update["time_step_minutes"] = config.time_step_minutes or step
    return config.model_copy(update=update), files, left_out


def open_folder(folder: str, config: "RadarConfig") -> Folder:
    """Decodes a folder, of which at least one composite can be used."""
    config, files, left_out = look_into(folder, config)
    if is_prepared(folder):
        manifest, found = read_prepared(folder, "radar", config.shaping())
        left_out = LeftOut(manifest.left_out, "composite")
        entries = [frames for frames in found if frames is not None]
    else:
        entries = list(decode(files, config, default_cache()))
    composites = usable_composites(entries, left_out, config)
    if not composites:
        suffixes = ", ".join(format_named(config.radar_format).suffixes)
        raise UserError(
            f"the folder '{folder}' holds no radar composite that can be used "
            f"as data.radar_format={config.radar_format!r} ({suffixes})"
            + (f": {left_out}" if left_out.reasons else "")
        )
    series, filled = fill_gaps(composites, config, default_cache())
    runs, missing = split_at_gaps(series, config.time_step_minutes)
    return Folder(config, composites, left_out, runs, missing, filled)


def remarks(folders: Sequence[Folder]) -> str:
    """What is missing in folders, filled, above the scale or left out, in sentences.

    Each begins with a space; without any of that the result is empty.
    """
    found = ""
    if missing := sum(one.missing for one in folders):
        found += f" Time steps missing: {missing}."
    if filled := sum(one.filled for one in folders):
        found += f" Time steps filled by advection: {filled}."
    if beyond := sum(one.beyond for folder in folders for one in folder.composites):
        found += f" {folders[0].config.cut_off(beyond)}."
    if told := "; ".join(str(one.left_out) for one in folders if one.left_out.reasons):
        found += f" Left out: {told}."
    return found


def check_alike(folders: Sequence[Folder], span: int) -> None:
    """Refuses folders whose clips would not have one pixel size and one time step.

    Of several, each must also have an event of `span` composites.
    """
    for one, other in pairwise(folders):
        steps, sizes = (
            [f"{folder.config.time_step_minutes:g}" for folder in (one, other)],
            [folder.composites[0].pixel_size_km for folder in (one, other)],
        )
        names = f"'{one.config.path}' and '{other.config.path}'"
        if steps[0] != steps[1]:
            raise UserError(
                f"the composites of {names} are {steps[0]} and {steps[1]} minutes "
                "apart: all folders of data.path must have one time step"
            )
        if max(sizes) > 1.01 * min(sizes):
            raise UserError(
                f"the pixels of {names} are of {sizes[0]:.3g} and {sizes[1]:.3g} km: "
                "data.pixel_size_km must be the size that all are brought to"
            )
    for folder in folders if len(folders) > 1 else ():
        longest = max(map(len, folder.runs))
        if longest < span:
            raise UserError(
                f"{folder.facts()}; at most {plural(longest, 'composite')} are in a "
                f"row, and a clip needs {span}: leave the folder out of data.path, or "
                "ask for fewer frames"
            )
