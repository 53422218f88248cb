"""`--mode=predict`: the frames that follow a clip, or the class of every clip."""

import json
import os
import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.cli.build import build_objective, load_variables
from convlstm_jax.cli.experiment import Experiment
from convlstm_jax.cli.process import say
from convlstm_jax.cli.watch import new_clips
from convlstm_jax.data.base import InputClip
from convlstm_jax.data.video.annotated import AnnotatedVideoConfig
from convlstm_jax.data.video.config import FilmFields
from convlstm_jax.errors import UserError
from convlstm_jax.metrics.baselines import missing_packages
from convlstm_jax.objectives.whole_area import WholeArea
from convlstm_jax.viz.clip_writer import ClipLook, validate_output_path
from convlstm_jax.viz.maps import MAP_SUFFIXES, check_map_packages, crs_of


def run(
    experiment: Experiment,
    *,
    workdir: Path,
    input: Path,
    output: Path,
    num_frames: int | None,
    with_input: bool = False,
    scale: int = 1,
    watch: bool = False,
) -> None:
    """Predicts the frames that follow a clip, which is read as in training.

    A model trained to reconstruct returns the last frames of the clip in reverse order;
    a classifier writes the class of each clip of a film as `.json`. `.npy`, `.gif` and
    `.mp4` hold only the predicted frames, `.png` a film strip of input and prediction.
    For radar models `.npy` holds the rain rates of all members in mm/h, `[T, H, W, M]`,
    NaN where the last composite has no data, and `.nc` and `.tif` are maps. Without
    `num_frames`, as many frames as in training; `with_input`, the given frames come
    first. A film keeps its frames per second, and in GIF and MP4 each pixel becomes
    `scale` × `scale`. With `watch` each new composite of a folder gets a file, with its
    time in the name.
    """
    if os.path.realpath(input) in map(os.path.realpath, (output, output.parent)):
        raise UserError(
            f"--output={output} would be written over or among the frames of --input"
        )
    objective: Any = build_objective(experiment)
    objective.check_num_frames(num_frames)
    validate_output_path(output, objective.suffixes, what=objective.predicts)
    check_map_packages(output)
    if watch and not hasattr(experiment.data, "radar_format"):
        raise UserError("--watch is for models of radar composites alone")
    if experiment.model.kind == "classes":
        _classify(experiment, objective, workdir, input, output)
    else:
        count = num_frames or objective.num_output_frames
        request = _Request(
            experiment, objective, input, output, count, with_input, scale
        )
        _forecast(request, workdir, watch)


def beyond_training(objective: Any, num_frames: int | None) -> str:
    """A line about a roll-out that is longer than those of the training, or ""."""
    trained = getattr(objective, "num_output_frames", 0)
    if num_frames is None or num_frames <= trained:
        return ""
    return (
        f"note: training scored {trained} frames, so frame {trained + 1} and those "
        "after it are less certain than the metrics say"
    )


@dataclass(frozen=True)
class _Request:
    """What is asked for, and the objective that answers."""

    experiment: Experiment
    objective: Any
    input: Path
    output: Path
    num_frames: int
    with_input: bool
    scale: int

    @property
    def is_map(self) -> bool:
        return self.output.suffix.lower() in MAP_SUFFIXES


def _forecast(request: _Request, workdir: Path, watch: bool) -> None:
    experiment, objective = request.experiment, request.objective
    data, length = _filling_one(experiment.data), objective.num_input_frames
    clip = None if watch else data.read_input(str(request.input), length)
    if clip is not None and clip.times is None and request.is_map:
        raise UserError(
            f"--output={request.output} is a map: --input must be a folder of "
            "composites, of which the times are known"
        )
    whole_area = objective.takes_whole_area and (clip is None or clip.mask is not None)
    if whole_area and not experiment.model.takes_any_size:
        raise UserError(
            "this model has weights for each location of its crops, so it cannot "
            "forecast the whole area: config.model.name must be a convolutional "
            "network and config.model.peephole 'channel' or 'none'"
        )
    step, variables = load_variables(objective, experiment, workdir)
    patch = getattr(experiment.model, "patch_size", 1) if whole_area else 1
    predict = WholeArea(objective, variables, patch)
    if longer := beyond_training(objective, request.num_frames):
        say(longer)
    if clip is not None:
        _answer(request, predict, clip, step)
        return
    output = request.output
    for clip, last, started in new_clips(request.input, data, length):
        named = output.with_stem(f"{output.stem}_{last:%Y%m%d%H%M}")
        _answer(replace(request, output=named), predict, clip, step)
        say(f"ready {time.monotonic() - started:.1f} s after its composite was there")


def _filling_one(data: Any) -> Any:
    """The data, of which one missing composite prevents no forecast."""
    if getattr(data, "max_filled_gap", 1):
        return data
    if missing := missing_packages():
        say(
            "note: a missing composite would prevent the forecast, as it cannot be "
            f"made without {' and '.join(missing)}: run `pip install -r "
            "requirements-radar.txt`"
        )
        return data
    return data.model_copy(update={"max_filled_gap": 1})


def _answer(request: _Request, predict: WholeArea, clip: InputClip, step: int) -> None:
    """Forecasts from one clip, writes it and says what was done."""
    objective, output = request.objective, request.output
    num_frames, started = request.num_frames, time.monotonic()
    frames = clip.frames.astype(np.float32)
    if clip.frames.dtype == np.uint8:
        frames /= 255
    try:
        mask = clip.mask if objective.takes_whole_area else None
        prediction = predict(frames, num_frames, mask)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"--num_frames is {num_frames}: so many frames do not fit into memory"
        ) from error
    written, times = prediction, _times(objective, clip, num_frames)
    num_members = prediction.shape[-1] // frames.shape[-1]  # Of one channel each.
    if request.with_input and output.suffix.lower() != ".png":  # The strip has both.
        written = np.concatenate([frames.repeat(num_members, axis=-1), prediction])
        times = [*(clip.times or ()), *times]
    look = ClipLook(clip.rate, request.scale, times, clip.times or (), clip.grid)
    objective.write_prediction(output, frames, clip.mask, written, look)
    what = f"predicted from the last {objective.num_input_frames} of {clip.label}"
    if "model" in objective.reconstructions:
        what = f"reconstructed, not predicted: the last of {request.input}, in reverse"
    members = f" of {num_members} members" if num_members > 1 else ""
    after = ""
    if clip.times is not None:
        minutes = num_frames * objective.facts.minutes_per_frame
        after = f", the {minutes:g} minutes after {clip.times[-1]:%Y-%m-%d %H:%M},"
    say(
        f"{output}: {num_frames} frames{members}{after} {what}, with the weights of "
        f"step {step}, in {time.monotonic() - started:.1f} s"
    )
    if request.is_map and crs_of(clip.grid) is None:
        say("note: the projection is not known, so the places in it are pixels")


def _times(objective: Any, clip: InputClip, num_frames: int) -> list[datetime]:
    """The times of the predicted frames, where those of the given ones are known."""
    if clip.times is None:
        return []
    step = timedelta(minutes=objective.facts.minutes_per_frame)
    return [clip.times[-1] + step * (frame + 1) for frame in range(num_frames)]


def _classify(
    experiment: Experiment,
    objective: Any,
    workdir: Path,
    input: Path,
    output: Path,
) -> None:
    data, length = experiment.data, objective.num_input_frames
    if not isinstance(data, FilmFields):  # Trained on films drawn in memory.
        height, width, channels = data.frame_shape
        data = AnnotatedVideoConfig(
            path=str(input), height=height, width=width, channels=channels
        )
    film, stride = data.open_film(str(input)), data.frame_stride
    between = (data.clip_stride or length) * stride
    span = (length - 1) * stride + 1
    starts = [
        start
        for start in range(0, film.num_frames - span + 1, between)
        if film.can_read(start, length, stride)
    ]
    if not starts:
        raise UserError(
            f"--input={input} has {film.num_frames} frames: this model needs at least "
            f"{span} that can be read"
        )
    step, variables = load_variables(objective, experiment, workdir)
    classify = jax.jit(objective.classify)
    clips = []
    for start in tqdm(starts, desc="classifying", unit="clip", disable=None):
        frames = film.read(start, length, stride)
        probabilities = np.asarray(classify(variables, frames[None])[0])
        named = zip(objective.classes, map(float, probabilities), strict=True)
        clips.append(
            {
                "first_frame": start,
                "last_frame": start + span - 1,
                "class": objective.classes[int(probabilities.argmax())],
                "probabilities": dict(named),
            }
        )
    result = {"input": str(input), "step": step, "clips": clips}
    with atomic_file(output) as partial:
        partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    counts = Counter(clip["class"] for clip in clips)
    named_counts = ", ".join(f"{counts[name]} {name}" for name in objective.classes)
    print(
        f"{output}: {len(clips)} clips of {input} classified ({named_counts}), with "
        f"the weights of step {step}"
    )
