"""`--mode=prepare`: decodes the videos of a folder once, for all trainings to come."""

from pathlib import Path

from ml_collections import ConfigDict
from tqdm import tqdm

from convlstm_jax.cli.build import build_sources
from convlstm_jax.cli.workdir import locked
from convlstm_jax.data.prepared import MANIFEST_FILE, is_prepared
from convlstm_jax.data.preparing import prepare_videos
from convlstm_jax.data.shard_writer import refused
from convlstm_jax.errors import UserError

# What shapes the frames, and so must be the same where a prepared folder is read.
_SETTINGS = (
    "height", "width", "channels", "crop_box", "value_range", "variable", "bad_files",
)  # fmt: skip
_SHOWN_PROBLEMS = 10


def run(config: ConfigDict, *, output: Path) -> None:
    """Writes a prepared folder, and opens it as training would.

    Args:
        config: the experiment, whose data.path is the folder of videos.
        output: the folder to write: a new one, or one to go on with.

    Raises:
        UserError: the config has no folder of videos, a video is to be refused, the
            output cannot be written or is of something else, or the videos do not fill
            the splits (what was prepared is kept then).
    """
    data = config.data
    if not data.path or config.task.name in ("classify", "nowcast"):
        raise UserError(
            f"config.data.path is {data.path!r} and config.task.name is "
            f"{config.task.name!r}: --mode=prepare needs a folder of videos, and not "
            "the tasks 'classify' and 'nowcast', whose annotations and radar "
            "composites are read as they lie"
        )
    if is_prepared(data.path):
        raise UserError(
            f"config.data.path is {data.path!r}, which is a prepared folder already: "
            "--mode=prepare needs the folder of videos"
        )
    if output.is_file():
        raise UserError(f"--output={output} is a file: it must be a folder")
    if output.resolve().is_relative_to(Path(data.path).expanduser().resolve()):
        raise UserError(
            f"--output={output} lies in config.data.path={data.path!r}: it must be "
            "another folder, or its files would count among the videos"
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(output, error) from error
    lock = locked(output, work="--mode=prepare", flag="output")
    try:
        with lock, tqdm(desc="preparing", unit="video", disable=None) as bar:
            bar.bar_format = "{l_bar}{bar}| {n:.1f}/{total} [{elapsed}<{remaining}]"

            def show(done: float, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            manifest = prepare_videos(
                data.path,
                output,
                settings={name: data[name] for name in _SETTINGS},
                condition=data.condition,
                report=show,
            )
    except KeyboardInterrupt:
        print(f"stopped: the same command goes on in {output}")
        raise
    _tell(manifest, output)
    with config.copy_and_resolve_references().unlocked() as prepared:
        prepared.data.path = str(output)
    print(build_sources(prepared).description)


def _tell(manifest: dict, output: Path) -> None:
    """Prints what was written and what was left out."""
    counts, size = manifest["counts"], sum(s["bytes"] for s in manifest["shards"])
    used = counts["videos"] - counts["videos_left_out"]
    print(
        f"{output}: {counts['frames']} frames of {used} videos in "
        f"{len(manifest['shards'])} shards, {size / 2**20:.1f} MiB"
    )
    problems = [video for video in manifest["videos"] if video["problem"]]
    for video in problems[:_SHOWN_PROBLEMS]:
        print(f"left out of {video['name']}: {video['problem'].rstrip('.')}")
    if len(problems) > _SHOWN_PROBLEMS:
        more = len(problems) - _SHOWN_PROBLEMS
        print(f"left out of {more} more videos: see {output / MANIFEST_FILE}")
    if counts["frames_blank"]:
        print(
            f"nothing is to be seen in {counts['frames_blank']} frames, which are "
            f"kept; {counts['videos_all_blank']} videos have no others"
        )
