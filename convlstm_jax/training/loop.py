"""The training loop: steps, validations, checkpoints, and every way to stop."""

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

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


_Outcome = Literal["finished", "stopped early", "interrupted", "diverged"]


class Batches(Protocol):
    """An iterator over batches that holds threads or processes until closed."""

    def __next__(self) -> dict[str, np.ndarray]:
        """Returns the next batch."""
        ...

    def close(self) -> None:
        """Ends the threads and processes."""
        ...


@dataclass(frozen=True)
class FitSettings:
    """How long to train, and how often to do what beside it.

    Attributes:
        num_steps: steps of the whole run.
        batch_size: clips in a global batch, for the samples/s shown.
        eval_every_steps: a validation and a checkpoint every so many steps.
        checkpoint_every_steps: a checkpoint every so many steps besides.
        log_every_steps: training figures are written every so many steps.
        early_stopping_patience: validations without improvement before the run stops;
            0 is never.
    """

    num_steps: int
    batch_size: int
    eval_every_steps: int
    checkpoint_every_steps: int
    log_every_steps: int
    early_stopping_patience: int = 0


@dataclass(frozen=True)
class FitResult:
    """How the run ended.

    Attributes:
        outcome: "finished", "stopped early", "interrupted", or "diverged" (the loss or
            a gradient was not finite; the state is that of the last good step).
        step: steps taken; a checkpoint of this step exists.
    """

    outcome: _Outcome
    step: int


class _Meter:
    """Averages training figures between two log lines, and the rate meanwhile."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self.reset()

    def reset(self) -> None:
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._started = time.perf_counter()

    def add(self, loss: float, gradient_norm: float) -> None:
        self._losses.append(loss)
        self._norms.append(gradient_norm)

    def values(self) -> dict[str, float]:
        elapsed = time.perf_counter() - self._started
        return {
            "loss": float(np.mean(self._losses)),
            "gradient_norm": float(np.mean(self._norms)),
            "samples_per_second": len(self._losses) * self._batch_size / elapsed,
        }


def fit(
    state: TrainState,
    train_step: Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]],
    make_batches: Callable[[int], Batches],
    validate: Callable[[Any], dict[str, float]],
    draw: Callable[[int, Any, Writers], None],
    settings: FitSettings,
    *,
    workdir: Path,
    mesh: Mesh,
) -> FitResult:
    """Trains from the latest checkpoint of a folder, or from `state` if it has none.

    A resumed run takes the very steps the uninterrupted one would have taken. The
    first Ctrl-C or SIGTERM ends the run after its step, with a checkpoint; of several
    processes it need not reach more than one.

    Args:
        state: step 0; the template of what is restored.
        train_step: from `train.steps.make_train_step`; consumes the state.
        make_batches: the batches from a step on, with a `close` method.
        validate: the metrics of variables on the validation set; "loss" chooses the
            best checkpoint and stops early.
        draw: draws validation predictions of a step.
        settings: lengths and intervals.
        workdir: folder of checkpoints, `metrics.csv` and TensorBoard files.
        mesh: devices.
    """
    early_stopping = EarlyStopping()
    start = 0
    with Checkpoints(
        workdir / "checkpoints", metric_name="loss", higher_is_better=False
    ) as checkpoints:
        restored = checkpoints.restore_latest(state)
        if restored is not None:
            start, state, progress = restored
            early_stopping = EarlyStopping.from_json(progress["early_stopping"])
            _log.info("resumed at step %d of %d", start, settings.num_steps)
        with (
            Writers(
                workdir,
                resumed_step=start if restored else None,
                active=jax.process_index() == 0,
            ) as writers,
            closing(make_batches(start)) as batches,
            graceful_interrupts() as interrupts,
        ):
            run = _Run(settings, checkpoints, writers, validate, draw, early_stopping)
            return run(state, start, train_step, batches, interrupts, mesh)


def _headline(metrics: Mapping[str, float]) -> str:
    """What people look at beside the loss."""
    if "accuracy" in metrics:
        return f", accuracy {metrics['accuracy']:.3f}"
    return f", MSE {metrics['mse']:.4g} per frame" if "mse" in metrics else ""


class _Run:
    """One stretch of training between a start and the next stop."""

    def __init__(
        self,
        settings: FitSettings,
        checkpoints: Checkpoints,
        writers: Writers,
        validate: Callable[[Any], dict[str, float]],
        draw: Callable[[int, Any, Writers], None],
        early_stopping: EarlyStopping,
    ):
        self._settings = settings
        self._checkpoints = checkpoints
        self._writers = writers
        self._validate = validate
        self._draw = draw
        self._early_stopping = early_stopping
        self._meter = _Meter(settings.batch_size)
        # Whether a process was asked to stop, as all of them read it at one step.
        self._stops = False

    def __call__(
        self,
        state: TrainState,
        start: int,
        train_step: Callable,
        batches: Batches,
        interrupts: Interrupts,
        mesh: Mesh,
    ) -> FitResult:
        settings = self._settings
        in_flight: deque[tuple[int, dict[str, Any]]] = deque()
        if self._should_stop():
            return FitResult("stopped early", start)
        with tqdm(
            total=settings.num_steps, initial=start, unit="step", desc="training",
            disable=None, dynamic_ncols=True, file=sys.stderr,
        ) as bar:  # fmt: skip
            batch = put_batch(next(batches), mesh) if start < settings.num_steps else {}
            for step in range(start + 1, settings.num_steps + 1):
                state, metrics = train_step(state, batch)
                batch = {}  # The device frees the one it has when it has read it.
                asked = any_process(interrupts.requested, mesh)
                in_flight.append((step, {**metrics, "stops": asked}))
                # The device is busy with the step: time to fetch the next batch.
                if step < settings.num_steps:
                    batch = put_batch(next(batches), mesh)
                evaluates = step % settings.eval_every_steps == 0 or (
                    step == settings.num_steps
                )
                saves = step % settings.checkpoint_every_steps == 0
                stops = self._asked_to_stop(interrupts)
                drains = evaluates or saves or stops
                while len(in_flight) > (0 if drains else _STEPS_IN_FLIGHT):
                    if not self._read(*in_flight.popleft(), bar=bar):
                        return self._diverged(state)
                if evaluates:
                    self._evaluate(step, state)
                    self._meter.reset()
                    if self._should_stop():
                        return self._ended("stopped early", step, interrupts)
                elif saves or stops:
                    self._save(step, state)
                if stops and step < settings.num_steps:
                    return self._ended("interrupted", step, interrupts)
        return self._ended("finished", max(start, settings.num_steps), interrupts)

    def _asked_to_stop(self, interrupts: Interrupts) -> bool:
        # Several processes stop when all have read it, some steps later.
        alone = jax.process_count() == 1
        return self._stops or (alone and interrupts.requested)

    def _ended(self, outcome: _Outcome, step: int, interrupts: Interrupts) -> FitResult:
        self._checkpoints.wait()
        # Whoever stops a run in its last step has no use for what follows.
        if self._asked_to_stop(interrupts):
            outcome = "interrupted"
        return FitResult(outcome, step)

    def _should_stop(self) -> bool:
        return self._early_stopping.should_stop(self._settings.early_stopping_patience)

    def _read(self, step: int, metrics: Mapping[str, Any], bar: tqdm) -> bool:
        """Books the results of a step; false if they were not finite."""
        values = jax.device_get(metrics)
        if not values["finite"]:
            return False
        self._stops |= bool(values["stops"])
        self._meter.add(float(values["loss"]), float(values["gradient_norm"]))
        means = self._meter.values()
        bar.set_postfix_str(
            f"loss {means['loss']:.4g}, {means['samples_per_second']:.3g} samples/s",
            refresh=False,
        )
        bar.update()
        if step % self._settings.log_every_steps == 0:
            self._meter.reset()  # First, so that the next rate counts the writing.
            self._writers.write(step, "train", means)
            if bar.disable:  # No terminal: the log shows what the bar would.
                _log.info(
                    "step %d of %d: loss %.4g, %.3g samples/s",
                    step, bar.total, means["loss"], means["samples_per_second"],
                )  # fmt: skip
        return True

    def _evaluate(self, step: int, state: TrainState) -> None:
        metrics = self._validate(state.eval_variables)
        self._early_stopping = self._early_stopping.update(step, metrics["loss"])
        self._writers.write(step, "validation", metrics)
        self._save(step, state, metrics)
        self._draw(step, state.eval_variables, self._writers)
        best = "  (best so far)" if self._early_stopping.best_step == step else ""
        _log.info(
            "step %d of %d: validation loss %.4g%s%s",
            step, self._settings.num_steps, metrics["loss"], _headline(metrics), best,
        )  # fmt: skip

    def _save(self, step: int, state: TrainState, metrics: dict | None = None) -> None:
        progress = {"early_stopping": self._early_stopping.to_json()}
        self._checkpoints.save(step, state, progress, metrics)

    def _diverged(self, state: TrainState) -> FitResult:
        # The train step kept the last good state; only its mark has to go.
        step = int(state.step)
        good = state.replace(finite=np.ones((), bool))  # type: ignore[attr-defined]
        self._save(step, good)
        self._checkpoints.wait()
        return FitResult("diverged", step)
