"""The training loop: steps, validations, checkpoints, and every way to stop."""

import logging
import os
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from convlstm_jax.config import Config, field
from convlstm_jax.training.checkpoint import Checkpoints
from convlstm_jax.training.sharding import any_process, put_batch
from convlstm_jax.training.state import EarlyStopping, TrainState
from convlstm_jax.training.trackers import TRACKERS
from convlstm_jax.training.writers import Writer, Writers

_log = logging.getLogger(__name__)

# Steps handed to the device before the result of an earlier one is read: enough to keep
# it busy, few enough to notice Ctrl-C and NaN at once. Slow steps need none, so that
# Ctrl-C waits for one step alone.
_STEPS_IN_FLIGHT = 2
_SLOW_STEP_SECONDS = 0.5
# The first step compiles; what training will take is known from those after it.
_STEPS_BEFORE_ESTIMATE = 4
_POLL_SECONDS = 0.002

_Outcome = Literal["finished", "stopped early", "interrupted", "diverged"]


class TrainConfig(Config):
    """How long to train, and how often to validate, save and log."""

    num_steps: int = field(100_000, "Optimizer steps.", ge=1, le=10**9, may_change=True)
    batch_size: int = field(16, "Clips in a step, over all devices.", ge=1)
    eval_every_steps: int = field(
        1000, "Steps between validations; each saves a checkpoint.", ge=1, le=10**9
    )
    checkpoint_every_steps: int = field(
        500, "Steps between checkpoints; each validation saves one as well.", ge=1
    )
    log_every_steps: int = field(50, "Steps between log lines.", ge=1, may_change=True)
    early_stopping_patience: int = field(
        0,
        "Validations without improvement before training stops; 0: never.",
        ge=0,
        may_change=True,
    )
    num_validation_sequences: int = field(256, "Clips of one validation.", ge=1)
    num_pictures: int = field(4, "Clips drawn at a validation.", ge=0, may_change=True)
    trackers: tuple[str, ...] = field(
        (), "Services that get the metrics and pictures too.", may_change=True,
        must=(
            f"be any of {', '.join(TRACKERS)}, separated by commas",
            lambda names: len({*names} & TRACKERS.keys()) == len(names),
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class FitResult:
    """How the run ended, after how many steps; a checkpoint of this step exists.

    "diverged": a loss or gradient was not finite; the last good step is kept.
    """

    outcome: _Outcome
    step: int


@contextmanager
def graceful_interrupts() -> Iterator[list[int]]:
    """Yields a list to which the first SIGINT or SIGTERM is added, with a message.

    A second signal raises `KeyboardInterrupt` at once. The previous handlers are
    restored at the end.
    """
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        # Python refuses this inside another print: the flag matters more.
        with suppress(RuntimeError):
            print(
                "Interrupted: finishing the step and saving; "
                "press Ctrl-C again to stop at once",
                file=sys.stderr,
                flush=True,
            )

    signals = (signal.SIGINT, signal.SIGTERM)
    former = {number: signal.signal(number, handle) for number in signals}
    try:
        yield received
    finally:
        for number, handler in former.items():
            # None stands for a handler that was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


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
    others: Sequence[Writer] = (),
) -> FitResult:
    """Trains from the latest checkpoint of a folder, or from `state` if it has none.

    A resumed run takes exactly the steps the uninterrupted one would have taken. The
    first Ctrl-C or SIGTERM ends the run after the current step, with a checkpoint; it
    is enough if one of several processes receives it.

    Args:
        state: step 0; also the template for restoring.
        train_step: from `make_train_step`; consumes the state.
        make_batches: step → an iterator of batches from there, with a method `close`.
        validate: variables → metrics; "loss" ranks checkpoints and stops early.
        draw: draws validation predictions of a step.
        config: lengths and intervals.
        workdir: folder of checkpoints and logs.
        mesh: devices.
        others: writers beside the logs in the folder.
    """
    start, early_stopping = 0, EarlyStopping()
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        restored = checkpoints.restore_latest(state)
        if restored is not None:
            start, state, early_stopping = restored
            _log.info("resumed at step %d of %d", start, config.num_steps)
        active = jax.process_index() == 0
        with (
            Writers(workdir, start_step=start, active=active, others=others) as writers,
            closing(make_batches(start)) as batches,
            graceful_interrupts() as interrupts,
        ):
            run = _Run(
                config, checkpoints, writers, interrupts, validate, draw, early_stopping
            )
            return run.train(state, start, train_step, batches, mesh)


@dataclass
class _Run:
    """One session of training, from a start to the next stop."""

    config: TrainConfig
    checkpoints: Checkpoints
    writers: Writers
    interrupts: list[int]
    validate: Callable[[Any], dict[str, float]]
    draw: Callable[[int, Any, Writers], None]
    early_stopping: EarlyStopping
    # Whether any process was asked to stop, read by all of them at the same step.
    stops: bool = False
    # When the first step of this session was read, and how many have been since.
    first_read: float | None = None
    steps_read: int = 0
    # Loss and norm of the gradient of each step since a time, for the log.
    measured: list[tuple[float, float]] = dataclass_field(default_factory=list)
    measured_since: float = dataclass_field(default_factory=time.perf_counter)

    def train(
        self,
        state: TrainState,
        start: int,
        train_step: Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]],
        batches: Iterator[dict[str, np.ndarray]],
        mesh: Mesh,
    ) -> FitResult:
        config, num_steps = self.config, self.config.num_steps
        if self.early_stopping.should_stop(config.early_stopping_patience):
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
                asked = any_process(bool(self.interrupts), mesh)
                in_flight.append((step, {**metrics, "stops": asked}))
                # The device is busy with the step: time to fetch the next batch.
                if step < num_steps:
                    batch = put_batch(next(batches), mesh)
                evaluates = step % config.eval_every_steps == 0 or step == num_steps
                saves = step % config.checkpoint_every_steps == 0
                waits_for_all = evaluates or saves or self._asked_to_stop()
                allowed = 0 if waits_for_all else self._steps_in_flight()
                while len(in_flight) > allowed:
                    if not self._read(*in_flight.popleft(), bar=bar):
                        return self._diverged(state)
                # With none in flight, Ctrl-C may have come while it waited.
                stops = not in_flight and self._asked_to_stop()
                if evaluates:
                    self._evaluate(step, state)
                    if self.early_stopping.should_stop(config.early_stopping_patience):
                        return self._ended("stopped early", step)
                elif saves or stops:
                    self.checkpoints.save(step, state, self.early_stopping)
                if stops and step < num_steps:
                    return self._ended("interrupted", step)
        return self._ended("finished", max(start, num_steps))

    def _steps_in_flight(self) -> int:
        # Several processes have to read the same steps.
        if jax.process_count() > 1:
            return _STEPS_IN_FLIGHT
        seconds = self._seconds_per_step()
        slow = seconds is None or seconds > _SLOW_STEP_SECONDS
        return 0 if slow else _STEPS_IN_FLIGHT

    def _seconds_per_step(self) -> float | None:
        """The mean since the first step of this session; `None` before the second."""
        if self.first_read is None or self.steps_read < 2:
            return None
        return (time.perf_counter() - self.first_read) / (self.steps_read - 1)

    def _asked_to_stop(self) -> bool:
        # Several processes stop when all have read it, some steps later.
        return self.stops or (jax.process_count() == 1 and bool(self.interrupts))

    def _ended(self, outcome: _Outcome, step: int) -> FitResult:
        self.checkpoints.wait()
        # A run that is stopped in its last step is not evaluated.
        return FitResult("interrupted" if self._asked_to_stop() else outcome, step)

    def _read(self, step: int, metrics: Mapping[str, Any], bar: tqdm) -> bool:
        """Records the results of a step; false if they were not finite."""
        finite: Any = metrics["finite"]  # A `jax.Array`, or of NumPy in tests.
        while hasattr(finite, "is_ready") and not finite.is_ready():
            time.sleep(_POLL_SECONDS)  # Here Python handles Ctrl-C, and answers it.
        values = jax.device_get(metrics)
        if not values["finite"]:
            return False
        self.first_read = self.first_read or time.perf_counter()
        self.steps_read += 1
        seconds = self._seconds_per_step()
        if self.steps_read == _STEPS_BEFORE_ESTIMATE and seconds is not None:
            say_what_it_takes(seconds * (self.config.num_steps - step), seconds)
        self.stops |= bool(values["stops"])
        self.measured.append((float(values["loss"]), float(values["gradient_norm"])))
        loss, norm = map(float, np.mean(self.measured, axis=0))
        samples = len(self.measured) * self.config.batch_size
        rate = samples / (time.perf_counter() - self.measured_since)
        bar.set_postfix_str(f"loss {loss:.4g}, {rate:.3g} samples/s", refresh=False)
        bar.update()
        if step % self.config.log_every_steps == 0:
            self._forget_measured()  # First, so that the next rate counts the writing.
            means = {"loss": loss, "gradient_norm": norm, "samples_per_second": rate}
            self.writers.write(step, "train", means)
            if bar.disable:  # No terminal: the log shows what the bar would.
                _log.info(
                    "step %d of %d: loss %.4g, %.3g samples/s",
                    step, bar.total, loss, rate,
                )  # fmt: skip
        return True

    def _forget_measured(self) -> None:
        self.measured, self.measured_since = [], time.perf_counter()

    def _evaluate(self, step: int, state: TrainState) -> None:
        metrics = self.validate(state.eval_variables)
        loss = metrics["loss"]
        self.early_stopping = self.early_stopping.update(step, loss)
        self.writers.write(step, "validation", metrics)
        self.checkpoints.save(step, state, self.early_stopping, loss)
        self.draw(step, state.eval_variables, self.writers)
        best = "  (best so far)" if self.early_stopping.best_step == step else ""
        _log.info(
            "step %d of %d: validation loss %.4g%s%s",
            step, self.config.num_steps, loss, _headline(metrics), best,
        )  # fmt: skip
        self._forget_measured()

    def _diverged(self, state: TrainState) -> FitResult:
        # The train step kept the last good state; only its flag must be reset.
        step = int(state.step)
        good = state.replace(finite=np.ones((), bool))  # type: ignore[attr-defined]
        self.checkpoints.save(step, good, self.early_stopping)
        self.checkpoints.wait()
        return FitResult("diverged", step)


def say_what_it_takes(seconds_left: float, seconds_per_step: float) -> None:
    """Logs the time to the end and the memory; warns above an hour or the machine's."""
    used, available = memory_bytes()
    _log.info(
        "about %s to the last step, without validations (%.2g s a step); "
        "%.1f of %.1f GiB of memory",
        in_words(seconds_left), seconds_per_step, used / 2**30, available / 2**30,
    )  # fmt: skip
    problems = []
    if seconds_left > 3600:
        problems.append(f"takes {in_words(seconds_left)}")
    if used > 0.9 * available:
        problems.append("needs almost all memory of this machine")
    if problems:
        _log.warning(
            "this training %s: on a machine without an accelerator use the preset "
            "quick, as in --config=bubbles:quick",
            " and ".join(problems),
        )


def memory_bytes() -> tuple[int, int]:
    """What training needs at its peak and what there is, of the device or the host."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics and "bytes_limit" in statistics:
        return statistics["peak_bytes_in_use"], statistics["bytes_limit"]
    unit = 1 if sys.platform == "darwin" else 1024
    used = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used, host_memory_bytes()


def host_memory_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def in_words(seconds: float) -> str:
    """A duration in its largest two units, such as `2 h 10 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_of_hour = divmod(minutes, 60)
    days, hours_of_day = divmod(hours, 24)
    if days:
        return f"{days} d {hours_of_day} h"
    if hours:
        return f"{hours} h {minutes_of_hour} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _headline(metrics: Mapping[str, float]) -> str:
    """The metric that the log shows with the loss."""
    if "accuracy" in metrics:
        return f", accuracy {metrics['accuracy']:.3f}"
    return f", MSE {metrics['mse']:.4g} per frame" if "mse" in metrics else ""
