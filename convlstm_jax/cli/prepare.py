"""`--mode=prepare`: decodes the data of a folder once, for later trainings."""

from pathlib import Path

from convlstm_jax.cli.experiment import Experiment
from convlstm_jax.cli.workdir import locked, make
from convlstm_jax.data.prepared import KINDS, MANIFEST_FILE, Manifest, is_prepared
from convlstm_jax.errors import UserError
from convlstm_jax.paths import local_path

_SHOWN_PROBLEMS = 10


def run(experiment: Experiment, *, output: Path) -> None:
    """Writes a prepared folder and opens it as training does.

    `output` is a new folder, or one to resume.
    """
    data = experiment.data
    if data.name not in KINDS:
        raise UserError(
            f"config.data.name is {data.name!r}: --mode=prepare needs "
            f"config.data.path, a folder of {', '.join(KINDS.values())}"
        )
    path = local_path(data.path)  # type: ignore[attr-defined]
    if is_prepared(path):
        raise UserError(
            f"config.data.path is '{path}', which is a prepared folder already"
        )
    if output.resolve().is_relative_to(path.resolve()):
        raise UserError(
            f"--output={output} lies in config.data.path='{path}': choose another"
        )
    make(output, flag="output")
    try:
        with locked(output, work="--mode=prepare", flag="output"):
            manifest = data.prepare(output)  # type: ignore[attr-defined]
    except KeyboardInterrupt:
        print(f"stopped: the same command resumes in {output}")
        raise
    _print_summary(manifest, output)
    prepared = data.model_copy(update={"path": str(output)})
    sources = prepared.sources(
        num_frames=experiment.task.clip_length, seed=experiment.general.seed
    )
    print(sources.description)


def _print_summary(manifest: Manifest, output: Path) -> None:
    counts, words = manifest.counts, KINDS[manifest.kind]
    used = counts["items"] - counts["items_left_out"]
    # An item of radar composites is a day of them, one of films is a film.
    what = words if manifest.kind == "radar" else f"frames of {used} {words}"
    print(f"{output}: {counts['frames']} {what}")
    problems = [problem for found in manifest.left_out.values() for problem in found]
    problems += [
        f"{item.name}: {item.facts['problem']}"
        for item in manifest.items
        if item.facts.get("problem")
    ]
    for problem in problems[:_SHOWN_PROBLEMS]:
        print(f"left out: {problem}".rstrip("."))
    if len(problems) > _SHOWN_PROBLEMS:
        more = len(problems) - _SHOWN_PROBLEMS
        print(f"left out of {more} more {words}: see {output / MANIFEST_FILE}")
