"""Trackers of experiments, where they are installed: Weights & Biases and MLflow."""

import importlib.util
import io
import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError

_log = logging.getLogger(__name__)


class _WeightsAndBiases:
    def __init__(self, workdir: Path, run_id: str | None, config: Mapping[str, Any]):
        import wandb

        # Arguments would take precedence over the user's variables.
        name = os.environ.get("WANDB_NAME", workdir.resolve().name)
        folder = os.environ.get("WANDB_DIR", str(workdir))
        self._video = wandb.Video
        self._run = wandb.init(id=run_id, name=name, dir=folder, resume="allow")
        # Its own count of steps cannot go back to a checkpoint.
        self._run.define_metric("*", step_metric="step")
        self._run.config.update(dict(config), allow_val_change=True)
        self.run_id = self._run.id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def log_gif(self, step: int, tag: str, gif: bytes) -> None:
        self._run.log({"step": step, tag: self._video(io.BytesIO(gif), format="gif")})

    def finish(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _MLflow:
    def __init__(self, workdir: Path, run_id: str | None, config: Mapping[str, Any]):
        import mlflow

        self._mlflow = mlflow
        run = mlflow.start_run(run_id, run_name=workdir.resolve().name)
        if not run.data.params:  # They cannot be changed.
            mlflow.log_params(config)
        mlflow.log_dict(dict(config), "config.json")
        self.run_id = run.info.run_id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        allowed = {re.sub(r"[^\w\-. :/]", "_", name): v for name, v in values.items()}
        self._mlflow.log_metrics(allowed, step=step)

    def log_gif(self, step: int, tag: str, gif: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{tag.replace('/', '_')}_{step:07d}.gif")
            path.write_bytes(gif)
            self._mlflow.log_artifact(str(path), "pictures")

    def finish(self, failed: bool) -> None:
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


TRACKERS: dict[str, Any] = {"wandb": _WeightsAndBiases, "mlflow": _MLflow}


class Trackers:
    """The trackers of a run, which continues in them when it resumes.

    The id of the run in a tracker is kept in `<workdir>/<tracker>_run_id.txt`. A
    tracker that fails is named in a warning and left out from then on.
    """

    def __init__(self, names: Sequence[str], workdir: Path, config: Mapping[str, Any]):
        """Opens them in the first process, with `config` as the run's parameters."""
        told = f"config.train.trackers is {tuple(names)!r}, and"
        missing = [name for name in names if importlib.util.find_spec(name) is None]
        if missing:
            install = f"pip install {' '.join(missing)}"
            raise UserError(f"{told} {missing[0]} is not installed: {install}")
        self._open: dict[str, Any] = {}
        for name in names if jax.process_index() == 0 else ():
            file = workdir / f"{name}_run_id.txt"
            known = file.read_text(encoding="utf-8") if file.exists() else None
            try:
                self._open[name] = TRACKERS[name](workdir, known, config)
            except Exception as error:  # No login, no network, a run that was deleted.
                self.__exit__(type(error))
                why = " ".join(str(error).split())
                raise UserError(f"{told} {name} cannot be started: {why}") from error
            if known is None:
                with atomic_file(file) as partial:
                    partial.write_text(self._open[name].run_id, encoding="utf-8")

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self._each(lambda tracker: tracker.finish(kind is not None))

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Logs metrics as `split/name`."""
        named = {f"{split}/{name}": float(value) for name, value in values.items()}
        self._each(lambda tracker: tracker.log(step, named))

    def write_gif(self, step: int, tag: str, gif: bytes) -> None:
        """Logs an encoded GIF."""
        self._each(lambda tracker: tracker.log_gif(step, tag, gif))

    def _each(self, call: Callable[[Any], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                call(tracker)
            except Exception as error:
                del self._open[name]
                why = " ".join(str(error).split())
                _log.warning("%s failed (%s): training continues without it", name, why)
