"""The evaluation loop that validation and the final evaluation share, and VMAF."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from convlstm_jax.config import Config, field
from convlstm_jax.errors import UserError
from convlstm_jax.evaluation.result import EvaluationResult, WorstClip
from convlstm_jax.metrics.accumulate import MetricSummary, MetricSums, add_sums
from convlstm_jax.metrics.baselines import BASELINES
from convlstm_jax.metrics.registry import none_if_nan
from convlstm_jax.metrics.vmaf import MIN_SIDE, find_ffmpeg, vmaf
from convlstm_jax.training.sharding import put_batch
from convlstm_jax.viz.film_strip import selection
from convlstm_jax.viz.player import ClipName

_log = logging.getLogger(__name__)


class EvalConfig(Config):
    """How the test set is evaluated and drawn."""

    num_sequences: int = field(
        10_000, "Test sequences that are evaluated.", ge=1, may_change=True
    )
    batch_size: int = field(
        64, "Sequences in one step, over all devices.", ge=1, may_change=True
    )
    num_pictures: int = field(
        8, "Test sequences that are drawn.", ge=0, may_change=True
    )
    num_vmaf_sequences: int = field(
        16,
        "Test sequences, evenly spread, whose VMAF is measured where the package "
        "imageio-ffmpeg is installed. A film of 64 x 64 pixels takes about 50 ms.",
        ge=0, may_change=True,
    )  # fmt: skip


class RainEvalConfig(EvalConfig):
    """How the test set of a nowcast is evaluated and drawn."""

    rain_thresholds: tuple[float, ...] = field(
        (0.5, 2.0, 5.0, 10.0, 30.0),
        "Rain rates from which a pixel counts as an event, forecast or observed.",
        unit="mm/h", gt=0, min_length=1, may_change=True,
    )  # fmt: skip
    fss_window_sizes: tuple[int, ...] = field(
        (5,),
        "Sides of the windows of the fractions skill score.",
        unit="pixels", ge=1, le=999, odd=True, min_length=1, example="(1,5,9)",
        may_change=True,
    )  # fmt: skip


def evaluate(
    eval_step: Callable[[Any, dict], dict[str, Any]],
    summarize: Callable[[MetricSums, tuple[int, int, int]], MetricSummary],
    variables: Any,
    batches: Iterable[dict[str, np.ndarray]],
    mesh: Mesh,
    conditions: Sequence[str] = (),
    name_clip: Callable[[int], ClipName] = ClipName,
) -> EvaluationResult:
    """Measures a model, and the baselines that `eval_step` knows, over batches.

    `eval_step` is that of `training.steps.make_eval_step`, `summarize` that of the
    objective. The batches are this process's parts of those of
    `data.pipeline.eval_batches`, in whose order `name_clip` names a clip by its place.
    """
    totals: dict[str, MetricSums] = {}
    by_condition: dict[str, MetricSums] = {}
    clip_mse: list[np.ndarray] = []
    frame_shape = (1, 1, 1)
    for batch in batches:
        frame_shape = batch["frames"].shape[2:]
        sums = jax.device_get(eval_step(variables, put_batch(batch, mesh)))
        if "clip_mse" in sums:
            clip_mse.append(sums.pop("clip_mse"))
        for name, contender in sums.pop("by_condition", {}).items():
            by_condition[name] = add_sums(by_condition.get(name), contender)
        for name, contender in sums.items():
            totals[name] = add_sums(totals.get(name), contender)
    if not totals:
        raise ValueError("batches is empty: it must hold at least one batch")
    counts = np.asarray(by_condition["model"]["count"]) if conditions else np.zeros(0)
    present = [index for index, count in enumerate(counts) if count]
    contenders = {}
    # The model first: jit returns dictionaries in the order of their keys.
    for name in sorted(totals, key=lambda name: (name != "model", name)):
        contenders[name] = summarize(totals[name], frame_shape)
        for index in present:
            sums = jax.tree.map(lambda of, index=index: of[index], by_condition[name])
            summary = summarize(sums, frame_shape)
            contenders[name].per_condition[conditions[index]] = summary
    return EvaluationResult(
        contenders,
        {conditions[index]: int(counts[index]) for index in present},
        _worst(np.concatenate(clip_mse), name_clip) if clip_mse else [],
    )


def _worst(
    clip_mse: np.ndarray, name_clip: Callable[[int], ClipName]
) -> list[WorstClip]:
    """The clips of the largest error; one that is not a number is the worst."""
    errors = np.where(np.isnan(clip_mse), np.inf, clip_mse)
    order = np.argsort(-errors, kind="stable")[:4]
    return [
        WorstClip(name_clip(int(index)), none_if_nan(clip_mse[index]))
        for index in order
        if errors[index] > -np.inf
    ]


def add_vmaf(
    result: EvaluationResult,
    forecast: Callable[[Sequence[int]], Iterable[Any]],
    *,
    frame_size: tuple[int, int],
    conditions: Sequence[str],
    num_sequences: int,
    num_vmaf_sequences: int,
) -> None:
    """Adds "vmaf" of model and baselines: in total, per lead time and condition.

    `forecast` gives the `Example`s of clips; all processes call it, the first measures.
    """
    count = min(num_vmaf_sequences, num_sequences)
    if not count:
        return
    if min(frame_size) < MIN_SIDE:
        words = "no VMAF: frames are of %d×%d pixels, and it needs at least %d of both"
        _log.info(words, *frame_size, MIN_SIDE)
        return
    ffmpeg = find_ffmpeg() if jax.process_index() == 0 else None
    if jax.process_index() == 0 and ffmpeg is None:
        hint = "pip install imageio-ffmpeg"
        _log.info("no VMAF, which needs an ffmpeg with libvmaf: %s", hint)
        if jax.process_count() == 1:
            return
    indices = selection(num_sequences, count)
    scores: dict[str, list[np.ndarray]] = {}
    clip_conditions: list[int | None] = []
    for clip in forecast(indices.tolist()):
        if ffmpeg is None:  # The others of several processes wait for this one.
            continue
        try:
            of_clip = _scores(ffmpeg, clip)
        except UserError as error:
            _log.warning("no VMAF: %s", error)
            ffmpeg, scores = None, {}
            continue
        clip_conditions.append(clip.condition)
        for name, values in of_clip.items():
            scores.setdefault(name, []).append(values)
    if not scores:
        return
    result.data["num_vmaf_sequences"] = count
    for name, rows in scores.items():
        values, contender = np.stack(rows), result.contenders[name]
        contender.total["vmaf"] = float(values.mean())
        contender.per_lead_time["vmaf"] = values.mean(axis=0).tolist()
        for condition, summary in contender.per_condition.items():
            index = conditions.index(condition)
            chosen = values[[index == other for other in clip_conditions]]
            summary.total["vmaf"] = float(chosen.mean()) if len(chosen) else None


def _scores(ffmpeg: str, clip: Any) -> dict[str, np.ndarray]:
    """VMAF of each frame, of what the model gave out and of the baselines."""
    scores = {
        name: vmaf(ffmpeg, prediction, truth)
        for name, (_, truth, prediction) in clip.outputs.items()
    }
    inputs, truth, _ = clip.outputs["model"]
    for name, baseline in BASELINES.items():
        prediction = baseline(jnp.asarray(inputs[None]), len(truth))[0]
        scores[name] = vmaf(ffmpeg, np.asarray(prediction), truth)
    return scores
