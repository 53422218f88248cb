"""VMAF among the metrics of an evaluation, where a machine can measure it."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convlstm_jax.errors import UserError
from convlstm_jax.evaluation.result import EvaluationResult
from convlstm_jax.metrics.baselines import BASELINES
from convlstm_jax.metrics.vmaf import INSTALL_HINT, MIN_SIDE, find_ffmpeg, vmaf

_log = logging.getLogger(__name__)


def add_vmaf(
    result: EvaluationResult,
    forecast: Callable[[Sequence[int]], Iterable[Any]],
    *,
    frame_size: tuple[int, int],
    conditions: Sequence[str],
    num_sequences: int,
    num_vmaf_sequences: int,
) -> None:
    """Adds "vmaf" of the model and the baselines to a result.

    In total, per lead time and per condition. Without an ffmpeg that measures it, the
    log says how to get one, and where ffmpeg fails, what it said: the evaluation stands
    without VMAF. All processes take part; the first one measures.

    Args:
        result: Changed in place, its "data" too.
        forecast: Forecasts the clips at some places of the test set, in their order:
            of each its "condition", an index or None, and its "outputs", name → inputs,
            truth and prediction, `[T, H, W, C]`.
        frame_size: Height and width.
        conditions: Names of the conditions.
        num_sequences: Test clips that were evaluated.
        num_vmaf_sequences: How many of them are measured, evenly spread.
    """
    count = min(num_vmaf_sequences, num_sequences)
    if not count:
        return
    if min(frame_size) < MIN_SIDE:
        _log.info(
            "no VMAF: frames are of %d×%d pixels, and it needs at least %d of both",
            *frame_size, MIN_SIDE,
        )  # fmt: skip
        return
    ffmpeg = find_ffmpeg() if jax.process_index() == 0 else None
    if jax.process_index() == 0 and ffmpeg is None:
        _log.info("no VMAF, which needs an ffmpeg with libvmaf: %s", INSTALL_HINT)
        if jax.process_count() == 1:
            return
    indices = np.linspace(0, num_sequences - 1, count).round().astype(int)
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
