"""A trained network as a folder to share: config, weights, model card."""

import importlib.util
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

import convlstm_jax
from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.cli import workdir
from convlstm_jax.cli.build import (
    build_objective,
    initial_shapes,
    load_variables,
)
from convlstm_jax.cli.experiment import Experiment, experiment
from convlstm_jax.errors import UserError
from convlstm_jax.metrics.registry import find_metric, format_value, in_order
from convlstm_jax.objectives.base import Variables
from convlstm_jax.paths import local_path

HUB = "hf://"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"

_NOT_CONTENDERS = (
    "per_lead_time", "diagrams", "per_condition", "data", "conventions",
)  # fmt: skip


def save(
    folder: Path,
    experiment: Experiment,
    variables: Variables,
    training_step: int,
    evaluation: Mapping[str, Any],
) -> None:
    """Writes `config.json`, `model.safetensors` and a model card, `README.md`.

    Raises:
        UserError: The folder holds a run, or cannot be written.
    """
    if workdir.holds_checkpoints(folder):
        raise UserError(f"'{folder}' holds a run: choose another folder")
    flat = flatten_dict(jax.device_get(variables), sep="/")
    arrays = {name: np.ascontiguousarray(array) for name, array in flat.items()}
    metadata = {"training_step": str(training_step)}
    with atomic_file(folder / WEIGHTS_FILE) as partial:
        partial.write_bytes(safetensors.numpy.save(arrays, metadata))
    workdir.save_config(folder, experiment.config)
    card = "\n".join(_card(experiment, arrays, training_step, evaluation)) + "\n"
    with atomic_file(folder / CARD_FILE) as partial:
        partial.write_text(card, encoding="utf-8")


class Loaded(NamedTuple):
    """A trained network: its folder, config, steps of training and variables."""

    folder: Path
    experiment: Experiment
    training_step: int
    variables: Variables


def load(where: str, *, named: str) -> Loaded:
    """The best weights of a run, or what `save` wrote, also on the hub.

    Messages name the folder as in `named`.

    Raises:
        UserError: There is no such folder, or its files are damaged.
    """
    folder = download(where) if where.startswith(HUB) else local_path(where)
    is_saved = (folder / WEIGHTS_FILE).is_file()
    workdir.require_run(folder, checkpoints=not is_saved, named=named)
    loaded = experiment(workdir.load_config(folder), reads_data=False)
    if is_saved:
        return Loaded(folder, loaded, *_saved_variables(folder, loaded))
    weights = load_variables(build_objective(loaded), loaded, folder)
    return Loaded(folder, loaded, *weights)


def _saved_variables(folder: Path, experiment: Experiment) -> tuple[int, Variables]:
    file = folder / WEIGHTS_FILE
    try:
        with safetensors.safe_open(file, framework="numpy") as content:
            arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            step = int((content.metadata() or {}).get("training_step", 0))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"'{file}' cannot be read: {error}") from error
    shapes = initial_shapes(build_objective(experiment), experiment)
    expected = {n: leaf.shape for n, leaf in flatten_dict(shapes, sep="/").items()}
    found = {name: array.shape for name, array in arrays.items()}
    if found != expected:
        name = sorted(dict(found.items() ^ expected.items()))[0]
        raise UserError(
            f"'{file}' does not fit {workdir.CONFIG_FILE}: {name} has the shape "
            f"{found.get(name, 'of no array')} there, and must have "
            f"{expected.get(name, 'none')}"
        )
    return step, unflatten_dict(arrays, sep="/")


def push(name: str, **content: Any) -> None:
    """As `save`, to `OWNER/NAME` on the Hugging Face Hub."""
    api = _hub().HfApi()
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), **content)
        api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder)


def download(address: str) -> Path:
    """The local copy of `hf://OWNER/NAME`."""
    files = [workdir.CONFIG_FILE, WEIGHTS_FILE, "evaluation.json"]
    name = address.removeprefix(HUB)
    try:
        return Path(_hub().snapshot_download(name, allow_patterns=files))
    except (OSError, ValueError) as error:
        raise UserError(f"{address} cannot be downloaded: {error}") from error


def _hub() -> Any:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(f"{HUB} needs huggingface_hub: pip install huggingface_hub")
    import huggingface_hub

    return huggingface_hub


def _card(
    experiment: Experiment,
    arrays: Mapping[str, np.ndarray],
    training_step: int,
    evaluation: Mapping[str, Any],
) -> Iterator[str]:
    model, task = experiment.model, experiment.task
    count = sum(a.size for n, a in arrays.items() if n.startswith("params/"))
    yield from ("---", "library_name: convlstm_jax", "tags: [convlstm, video]", "---")
    yield from ("", f"# {model.name}", "")
    yield f"{count:,} parameters, trained for {training_step:,} steps: {task.name}, "
    yield f"{task.num_input_frames} frames given, data set `{experiment.data.name}`."
    yield from ("", "```python", "from convlstm_jax import load", "")
    yield 'predictor = load("FOLDER")  # or load("hf://OWNER/NAME")'
    yield from ("prediction = predictor.predict(frames)", "```", "")
    height, width, channels = experiment.data.frame_shape
    yield f"`frames` is `[T, {height}, {width}, {channels}]`, uint8 or in [0, 1]."
    yield from _results(evaluation)
    commit = _commit()
    version = f"convlstm_jax {convlstm_jax.__version__}"
    yield from ("", f"Saved by {version}{f', commit `{commit}`' * bool(commit)}.")


def _results(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """The table of metrics beside baselines, and what each of them is."""
    contenders = {
        name: values
        for name, values in evaluation.items()
        if isinstance(values, dict) and name not in _NOT_CONTENDERS
    }
    if "model" not in contenders:
        yield from ("", "It has not been evaluated.")
        return
    data = evaluation.get("data", {})
    yield from ("", "## Results", "", str(data.get("description", "")), "")
    yield f"{data.get('num_sequences', '')} sequences of the test set:"
    yield from ("", f"| metric | {' | '.join(contenders)} |")
    yield "|---" * (1 + len(contenders)) + "|"
    model = contenders["model"]
    metrics = [
        metric for metric in in_order(model) if isinstance(model[metric], float | None)
    ]
    for metric in metrics:
        values = (format_value(of.get(metric)) for of in contenders.values())
        yield f"| {metric} | {' | '.join(values)} |"
    yield ""
    for metric in metrics:
        if convention := find_metric(metric).convention:
            yield f"- {metric}: {convention}"


def _commit() -> str:
    """The commit of this program, where it runs from its repository."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
