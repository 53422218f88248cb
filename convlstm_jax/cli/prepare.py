"""`--mode=prepare`: decodes the data of a folder once, for all trainings to come."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from tqdm import tqdm

from convlstm_jax.cli.build import build_sources, composite_reader
from convlstm_jax.cli.prepared_conditions import kind_of_task
from convlstm_jax.cli.workdir import locked
from convlstm_jax.data.prepared import MANIFEST_FILE, Kind, is_prepared
from convlstm_jax.data.preparing import Report
from convlstm_jax.data.preparing_annotations import prepare_annotated_videos
from convlstm_jax.data.preparing_composites import prepare_composites
from convlstm_jax.data.preparing_videos import prepare_videos
from convlstm_jax.data.shard_writer import refused
from convlstm_jax.errors import UserError

# What shapes the frames, and so must be the same where a prepared folder is read.
_ANNOTATED_SETTINGS = ("height", "width", "channels", "crop_box", "bad_files")
_VIDEO_SETTINGS = (*_ANNOTATED_SETTINGS, "value_range", "variable")
_SHOWN_PROBLEMS = 10


def run(config: ConfigDict, *, output: Path) -> None:
    """Writes a prepared folder, and opens it as training would.

    Args:
        config: the experiment, whose data.path is the folder of videos, of videos with
            annotations or of radar composites, by its task.
        output: the folder to write: a new one, or one to go on with.

    Raises:
        UserError: the config has no folder, a file is to be refused, the output cannot
            be written or is of something else, or what there is does not fill the
            splits (what was prepared is kept then).
    """
    data = config.data
    kind = kind_of_task(config.task.name)
    if not data.path:
        raise UserError(
            f"config.data.path is '': --mode=prepare needs a folder of {kind.words} "
            f"with config.task.name={config.task.name!r}"
        )
    if is_prepared(data.path):
        raise UserError(
            f"config.data.path is {data.path!r}, which is a prepared folder already: "
            f"--mode=prepare needs the folder of {kind.words}"
        )
    if output.is_file():
        raise UserError(f"--output={output} is a file: it must be a folder")
    if output.resolve().is_relative_to(Path(data.path).expanduser().resolve()):
        raise UserError(
            f"--output={output} lies in config.data.path={data.path!r}: it must be "
            f"another folder, or its files would count among the {kind.listed}"
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(output, error) from error
    lock = locked(output, work="--mode=prepare", flag="output")
    try:
        unit = kind.listed.removesuffix("s")
        with lock, tqdm(desc="preparing", unit=unit, disable=None) as bar:
            bar.bar_format = "{l_bar}{bar}| {n:.1f}/{total} [{elapsed}<{remaining}]"

            def show(done: float, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            manifest = _prepare(config, output, show)
    except KeyboardInterrupt:
        print(f"stopped: the same command goes on in {output}")
        raise
    _tell(manifest, output, kind)
    with config.copy_and_resolve_references().unlocked() as prepared:
        prepared.data.path = str(output)
    print(build_sources(prepared).description)


def _prepare(config: ConfigDict, output: Path, report: Report) -> dict[str, Any]:
    data = config.data
    if config.task.name == "nowcast":
        return prepare_composites(
            data.path,
            output,
            reader=composite_reader(config),
            bad_files=data.bad_files,
            report=report,
        )
    if config.task.name == "classify":
        settings = {name: data[name] for name in _ANNOTATED_SETTINGS}
        return prepare_annotated_videos(
            data.path, output, settings=settings, report=report
        )
    settings = {name: data[name] for name in _VIDEO_SETTINGS}
    return prepare_videos(
        data.path, output, settings=settings, condition=data.condition, report=report
    )


def _tell(manifest: dict[str, Any], output: Path, kind: Kind) -> None:
    """Prints what was written and what was left out."""
    counts, size = manifest["counts"], sum(s["bytes"] for s in manifest["shards"])
    used = counts[kind.listed] - counts[f"{kind.listed}_left_out"]
    print(
        f"{output}: {counts['frames']} frames of {used} {kind.listed} in "
        f"{len(manifest['shards'])} shards, {size / 2**20:.1f} MiB"
    )
    problems = [
        f"left out: {sentence}"
        for sentences in manifest["left_out"].values()
        for sentence in sentences
    ]
    problems += [
        f"left out of {entry['name']}: {entry['problem']}"
        for entry in manifest[kind.listed]
        if entry["problem"]
    ]
    for problem in problems[:_SHOWN_PROBLEMS]:
        print(problem.rstrip("."))
    if len(problems) > _SHOWN_PROBLEMS:
        more = f"{len(problems) - _SHOWN_PROBLEMS} more {kind.listed}"
        print(f"left out of {more}: see {output / MANIFEST_FILE}")
    if counts["frames_blank"]:
        print(
            f"nothing is to be seen in {counts['frames_blank']} frames, which are "
            f"kept; {counts[f'{kind.listed}_all_blank']} {kind.listed} have no others"
        )
