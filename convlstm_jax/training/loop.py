"""The training loop: steps, validations, checkpoints, and every way to stop."""

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from convlstm_jax.config import Config, field
from convlstm_jax.training.checkpoint import Checkpoints
from convlstm_jax.training.early_stopping import EarlyStopping
from convlstm_jax.training.interrupts import Interrupts, graceful_interrupts
from convlstm_jax.training.sharding import any_process, put_batch
from convlstm_jax.training.state import TrainState
from convlstm_jax.training.writers import Writers

_log = logging.getLogger(__name__)

# Steps handed to the device before the result of an earlier one is read: enough to keep
# it busy, few enough to notice Ctrl-C and NaN at once.
_STEPS_IN_FLIGHT = 2


class TrainConfig(Config):
    """How long to train, and how often to validate, save and log."""

    num_steps: int = field(100_000, "Optimizer steps.", ge=1, le=10**9, may_change=True)
    batch_size: int = field(16, "Clips in a step, over all devices.", ge=1)
    eval_every_steps: int = field(
        1000,
        "Steps between validations, each followed by a checkpoint.",
        ge=1,
        le=10**9,
    )
    checkpoint_every_steps: int = field(
        500, "Steps between checkpoints; each validation saves one as well.", ge=1
    )
    log_every_steps: int = field(
        50, "Steps between lines of the log.", ge=1, may_change=True
    )
    early_stopping_patience: int = field(
        0,
        "Validations without improvement before training stops; 0: never.",
        ge=0,
        may_change=True,
    )
    num_validation_sequences: int = field(256, "Clips of one validation.", ge=1)
    num_pictures: int = field(4, "Clips drawn at a validation.", ge=0, may_change=True)


@dataclass(frozen=True)
class FitResult:
    """How the run ended.

    Attributes:
        outcome: "finished", "stopped early", "interrupted", or "diverged" (the loss or
            a gradient was not finite; the state is that of the last good step).
        step: steps taken; a checkpoint of this step exists.
    """

    outcome: Literal["finished", "stopped early", "interrupted", "diverged"]
    step: int


def fit(
    state: TrainState,
    train_step: Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]],
    make_batches: Callable[[int], Any],
    validate: Callable[[Any], dict[str, float]],
    draw: Callable[[int, Any, Writers], None],
    config: TrainConfig,
    *,
    workdir: Path,
    mesh: Mesh,
) -> FitResult:
    """Trains from the latest checkpoint of a folder, or from `state` if it has none.

    A resumed run takes exactly the steps the uninterrupted one would have taken. The
    first Ctrl-C or SIGTERM ends the run after the current step, with a checkpoint; it
    is enough if one of several processes receives it.

    Args:
        state: step 0; also the template for restoring.
        train_step: from `make_train_step`; consumes the state.
        make_batches: step → an iterator of batches from there, with a method `close`.
        validate: the metrics of variables on the validation set; "loss" chooses the
            best checkpoint and stops early.
        draw: draws validation predictions of a step.
        config: lengths and intervals.
        workdir: folder of checkpoints, `metrics.csv` and TensorBoard files.
        mesh: devices.
    """
    start, early_stopping = 0, EarlyStopping()
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        restored = checkpoints.restore_latest(state)
        if restored is not None:
            start, state, early_stopping = restored
            _log.info("resumed at step %d of %d", start, config.num_steps)
        is_first_process = jax.process_index() == 0
        with (
            Writers(workdir, start_step=start, active=is_first_process) as writers,
            closing(make_batches(start)) as batches,
            graceful_interrupts() as interrupts,
        ):
            run = _Run(
                config, checkpoints, writers, interrupts, validate, draw, early_stopping
            )
            return run.train(state, start, train_step, batches, mesh)


class _Run:
    """One session of training, from a start to the next stop."""

    def __init__(
        self,
        config: TrainConfig,
        checkpoints: Checkpoints,
        writers: Writers,
        interrupts: Interrupts,
        validate: Callable[[Any], dict[str, float]],
        draw: Callable[[int, Any, Writers], None],
        early_stopping: EarlyStopping,
    ):
        self._config = config
        self._checkpoints = checkpoints
        self._writers = writers
        self._interrupts = interrupts
        self._validate = validate
        self._draw = draw
        self._early_stopping = early_stopping
        self._meter = _Meter(config.batch_size)
        # Whether any process was asked to stop, read by all of them at the same step.
        self._stops = False

    def train(
        self,
        state: TrainState,
        start: int,
        train_step: Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]],
        batches: Iterator[dict[str, np.ndarray]],
        mesh: Mesh,
    ) -> FitResult:
        config, num_steps = self._config, self._config.num_steps
        if self._early_stopping.should_stop(config.early_stopping_patience):
            return FitResult("stopped early", start)
        in_flight: deque[tuple[int, dict[str, Any]]] = deque()
        with tqdm(
            total=num_steps, initial=start, unit="step", desc="training",
            disable=None, dynamic_ncols=True, file=sys.stderr,
        ) as bar:  # fmt: skip
            batch = put_batch(next(batches), mesh) if start < num_steps else {}
            for step in range(start + 1, num_steps + 1):
                state, metrics = train_step(state, batch)
                batch = {}  # The device frees its copy when it has read it.
                asked = any_process(self._interrupts.requested, mesh)
                in_flight.append((step, {**metrics, "stops": asked}))
                # The device is busy with the step: time to fetch the next batch.
                if step < num_steps:
                    batch = put_batch(next(batches), mesh)
                evaluates = step % config.eval_every_steps == 0 or step == num_steps
                saves = step % config.checkpoint_every_steps == 0
                stops = self._asked_to_stop()
                waits_for_all = evaluates or saves or stops
                while len(in_flight) > (0 if waits_for_all else _STEPS_IN_FLIGHT):
                    if not self._read(*in_flight.popleft(), bar=bar):
                        return self._diverged(state)
                if evaluates:
                    self._evaluate(step, state)
                    self._meter.reset()
                    if self._early_stopping.should_stop(config.early_stopping_patience):
                        return self._ended("stopped early", step)
                elif saves or stops:
                    self._checkpoints.save(step, state, self._early_stopping)
                if stops and step < num_steps:
                    return self._ended("interrupted", step)
        return self._ended("finished", max(start, num_steps))

    def _asked_to_stop(self) -> bool:
        # Several processes stop when all have read it, some steps later.
        alone = jax.process_count() == 1
        return self._stops or (alone and self._interrupts.requested)

    def _ended(
        self, outcome: Literal["finished", "stopped early", "interrupted"], step: int
    ) -> FitResult:
        self._checkpoints.wait()
        # A run that is stopped in its last step is not evaluated.
        return FitResult("interrupted" if self._asked_to_stop() else outcome, step)

    def _read(self, step: int, metrics: Mapping[str, Any], bar: tqdm) -> bool:
        """Records the results of a step; false if they were not finite."""
        values = jax.device_get(metrics)
        if not values["finite"]:
            return False
        self._stops |= bool(values["stops"])
        self._meter.add(float(values["loss"]), float(values["gradient_norm"]))
        means = self._meter.means()
        loss, rate = means["loss"], means["samples_per_second"]
        bar.set_postfix_str(f"loss {loss:.4g}, {rate:.3g} samples/s", refresh=False)
        bar.update()
        if step % self._config.log_every_steps == 0:
            self._meter.reset()  # First, so that the next rate counts the writing.
            self._writers.write(step, "train", means)
            if bar.disable:  # No terminal: the log shows what the bar would.
                _log.info(
                    "step %d of %d: loss %.4g, %.3g samples/s",
                    step, bar.total, loss, rate,
                )  # fmt: skip
        return True

    def _evaluate(self, step: int, state: TrainState) -> None:
        metrics = self._validate(state.eval_variables)
        loss = metrics["loss"]
        self._early_stopping = self._early_stopping.update(step, loss)
        self._writers.write(step, "validation", metrics)
        self._checkpoints.save(step, state, self._early_stopping, loss)
        self._draw(step, state.eval_variables, self._writers)
        best = "  (best so far)" if self._early_stopping.best_step == step else ""
        _log.info(
            "step %d of %d: validation loss %.4g%s%s",
            step, self._config.num_steps, loss, _headline(metrics), best,
        )  # fmt: skip

    def _diverged(self, state: TrainState) -> FitResult:
        # The train step kept the last good state; only its flag must be reset.
        step = int(state.step)
        good = state.replace(finite=np.ones((), bool))  # type: ignore[attr-defined]
        self._checkpoints.save(step, good, self._early_stopping)
        self._checkpoints.wait()
        return FitResult("diverged", step)


def _headline(metrics: Mapping[str, float]) -> str:
    """The metric that the log shows with the loss."""
    if "accuracy" in metrics:
        return f", accuracy {metrics['accuracy']:.3f}"
    return f", MSE {metrics['mse']:.4g} per frame" if "mse" in metrics else ""


class _Meter:
    """Averages training metrics and the rate between two log lines."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self.reset()

    def reset(self) -> None:
        self._values: list[tuple[float, float]] = []
        self._started = time.perf_counter()

    def add(self, loss: float, gradient_norm: float) -> None:
        self._values.append((loss, gradient_norm))

    def means(self) -> dict[str, float]:
        elapsed = time.perf_counter() - self._started
        losses, norms = zip(*self._values, strict=True)
        return {
            "loss": float(np.mean(losses)),
            "gradient_norm": float(np.mean(norms)),
            "samples_per_second": len(self._values) * self._batch_size / elapsed,
        }
