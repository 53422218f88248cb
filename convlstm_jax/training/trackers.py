"""Trackers of experiments, where they are installed: Weights & Biases and MLflow.

Their own environment variables, such as `WANDB_MODE` and `MLFLOW_TRACKING_URI`, say
where they keep a run.
"""

import importlib.util
import io
import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError
from convlstm_jax.training.writers import Writer

_log = logging.getLogger(__name__)


class _WeightsAndBiases:
    def __init__(self, workdir: Path, run_id: str | None, config: Mapping[str, Any]):
        import wandb

        # An argument would take precedence over the user's variable.
        arguments: dict[str, tuple[str, Any]] = {
            "id": ("WANDB_RUN_ID", run_id),
            "name": ("WANDB_NAME", workdir.resolve().name),
            "dir": ("WANDB_DIR", str(workdir)),
            "resume": ("WANDB_RESUME", "allow"),
        }
        given = {k: v for k, (name, v) in arguments.items() if name not in os.environ}
        self._video, self._run = wandb.Video, wandb.init(**given)
        # Its own count of steps cannot go back to a checkpoint.
        self._run.define_metric("*", step_metric="step")
        self._run.config.update(dict(config), allow_val_change=True)
        self.run_id = self._run.id

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        named = {f"{split}/{name}": float(value) for name, value in values.items()}
        self._run.log({"step": step, **named})

    def write_gif(self, step: int, tag: str, gif: bytes) -> None:
        clip = self._video(io.BytesIO(gif), format="gif")
        self._run.log({"step": step, tag: clip})

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _MLflow:
    def __init__(self, workdir: Path, run_id: str | None, config: Mapping[str, Any]):
        import mlflow

        self._mlflow = mlflow
        name = None if run_id else workdir.resolve().name
        run = mlflow.start_run(run_id, run_name=name)
        if not run.data.params:  # They cannot be changed.
            mlflow.log_params(config)
        mlflow.log_dict(dict(config), "config.json")
        self.run_id = run.info.run_id

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        named = {f"{split}/{name}": float(value) for name, value in values.items()}
        allowed = {re.sub(r"[^\w\-. :/]", "_", name): v for name, v in named.items()}
        self._mlflow.log_metrics(allowed, step=step)

    def write_gif(self, step: int, tag: str, gif: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{tag.replace('/', '_')}_{step:07d}.gif")
            path.write_bytes(gif)
            self._mlflow.log_artifact(str(path), "pictures")

    def close(self, *, failed: bool) -> None:
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


TRACKERS: dict[str, Callable[..., Any]] = {
    "wandb": _WeightsAndBiases,
    "mlflow": _MLflow,
}


def check_installed(names: Sequence[str]) -> None:
    """Raises `UserError` if a tracker is not installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"config.train.trackers is {tuple(names)!r}, and {' and '.join(missing)} "
            f"not installed: pip install {' '.join(missing)}"
        )


class Trackers:
    """The trackers of a run, a `Writer`; a resumed run continues in each of them.

    A tracker that fails is named in a warning and left out from then on.
    """

    def __init__(self, names: Sequence[str], workdir: Path, config: Mapping[str, Any]):
        """Opens the trackers; `config` is what they show as the run's parameters.

        The id of the run in a tracker is kept in `<workdir>/<tracker>_run_id.txt`.
        """
        self._open: dict[str, Writer] = {}
        for name in names:
            file = workdir / f"{name}_run_id.txt"
            known = file.read_text(encoding="utf-8") if file.exists() else None
            try:
                tracker = TRACKERS[name](workdir, known, config)
            except Exception as error:  # No login, no network, a run that was deleted.
                self.close(failed=True)
                raise UserError(
                    f"config.train.trackers is {tuple(names)!r}, and {name} cannot be "
                    f"started: {_in_one_line(error)}"
                ) from error
            self._open[name] = tracker
            if known is None:
                with atomic_file(file) as partial:
                    partial.write_text(tracker.run_id, encoding="utf-8")

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self.close(failed=kind is not None)

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Logs metrics as `split/name`."""
        self._each(lambda tracker: tracker.write(step, split, values))

    def write_gif(self, step: int, tag: str, gif: bytes) -> None:
        """Logs an encoded GIF."""
        self._each(lambda tracker: tracker.write_gif(step, tag, gif))

    def close(self, *, failed: bool) -> None:
        """Ends the run in the trackers."""
        self._each(lambda tracker: tracker.close(failed=failed))

    def _each(self, call: Callable[[Writer], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                call(tracker)
            except Exception as error:
                del self._open[name]
                _log.warning(
                    "%s failed (%s): training continues without it",
                    name, _in_one_line(error),
                )  # fmt: skip


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
