"""`--mode=evaluate --input=FOLDER`: a trained model on all of a folder's composites."""

import dataclasses
import logging
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from convlstm_jax.cli.build import build_objective, load_variables
from convlstm_jax.cli.experiment import Experiment
from convlstm_jax.data.radar.config import RadarConfig, date_of
from convlstm_jax.data.radar.folder import Folder, open_folder, remarks
from convlstm_jax.errors import UserError
from convlstm_jax.evaluation.evaluate import evaluate
from convlstm_jax.metrics.baselines import (
    OPTICAL_FLOW,
    S_PROG,
    STEPS,
    WithOpticalFlow,
    extrapolate,
    missing_packages,
    s_prog,
    steps,
)
from convlstm_jax.objectives.nowcast import NowcastObjective
from convlstm_jax.training.sharding import data_mesh
from convlstm_jax.training.steps import make_eval_step
from convlstm_jax.viz.player import ClipName

_log = logging.getLogger(__name__)

_MEMBERS_OF_STEPS = 12  # Beside a single forecast, by their matched mean.


class WholeClips:
    """The whole area of a folder, from every n-th composite on; see `ClipSource`.

    It is filled up to a multiple of `patch_size` with pixels without data.
    """

    def __init__(
        self,
        folder: Folder,
        span: int,
        stride: int,
        every: int,
        patch: int,
    ) -> None:
        starts = [
            run[first : first + span]
            for run in folder.runs
            for first in range(len(run) - span + 1)
        ]
        self.folder = folder
        self.clips = [clip[::stride] for clip in starts[::every]]
        self.conditions = list(dict.fromkeys(map(date_of, self.clips)))
        self._patch = patch

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        clip = self.clips[index]
        read = np.stack([one.read() for one in clip], axis=1)
        padding = [(0, -side % self._patch) for side in read.shape[2:]]
        frames, mask = np.pad(read, [(0, 0), (0, 0), *padding])[..., np.newaxis]
        condition = np.asarray(self.conditions.index(date_of(clip)), np.int32)
        return {"frames": frames, "mask": mask, "condition": condition}

    def name(self, index: int) -> ClipName:
        """A clip by the time of its first composite."""
        return ClipName(index, f"{self.clips[index][0].time:%Y-%m-%d %H:%M}")


def whole_area(
    experiment: Experiment, folder: Path, every: int
) -> tuple[NowcastObjective, WholeClips]:
    """The objective for a folder's whole area, and clips from every n-th composite on.

    Raises:
        UserError: The model is of another kind, or the folder too short.
    """
    data, objective = experiment.data, build_objective(experiment)
    if not isinstance(data, RadarConfig) or not isinstance(objective, NowcastObjective):
        raise UserError("--input is for models of radar composites alone")
    if not experiment.model.takes_any_size:
        raise UserError(
            "this model has weights for each location of its crops, so it cannot be "
            "measured on a whole area"
        )
    facts = dataclasses.replace(objective.facts, margin=0)
    found, span = open_folder(str(folder), data), data.span(experiment.task.clip_length)
    patch = getattr(experiment.model, "patch_size", 1)
    clips = WholeClips(found, span, data.frame_stride, every, patch)
    if not clips:
        raise UserError(
            f"--input={folder} has at most {max(map(len, found.runs))} composites in a "
            f"row: it must have {span}"
        )
    return dataclasses.replace(objective, facts=facts), clips


def evaluate_folder(
    experiment: Experiment, workdir: Path, folder: Path, every: int
) -> None:
    """Measures the model, and what it is compared with, on the whole area of a folder.

    `evaluation_FOLDER.json` and `.csv` are written into the `workdir`.
    """
    objective, clips = whole_area(experiment, folder, every)
    found = clips.folder
    mesh = data_mesh(jax.local_devices()[:1])
    step, variables = load_variables(objective, experiment, workdir, mesh)
    lengths = objective.num_input_frames, objective.num_output_frames
    source: Any = clips
    if missing := missing_packages():
        _log.info("no optical flow, S-PROG or STEPS, which need %s", ", ".join(missing))
    else:
        ensemble = objective.num_members > 1
        of_members = partial(
            steps,
            num_members=objective.num_members if ensemble else _MEMBERS_OF_STEPS,
            km_per_pixel=found.composites[0].pixel_size_km,
            minutes_per_frame=objective.facts.minutes_per_frame,
        )
        methods: dict[str, Any] = {
            OPTICAL_FLOW: extrapolate,
            S_PROG: s_prog,
            STEPS: of_members,
        }
        source = WithOpticalFlow(clips, *lengths, objective.facts.rain_scale, methods)
    description = f"{found.facts()}; {len(clips)} clips of the whole area"
    if every > 1:
        description += f", from one of every {every} start times"
    description += f".{remarks([found])}"
    _log.info("the weights of step %d on %s", step, description)
    progress = tqdm(range(len(clips)), desc="evaluating", unit="clip", disable=None)
    weight = np.ones(1, np.float32)
    batches = (
        {"weight": weight, **{k: v[np.newaxis] for k, v in source[index].items()}}
        for index in progress
    )
    conditions = clips.conditions
    eval_step = make_eval_step(
        objective, mesh, with_baselines=True, num_conditions=len(conditions)
    )
    result = evaluate(
        eval_step, objective.summarize, variables, batches, mesh, conditions, clips.name
    )
    result.step = step
    result.data = {"description": description, "num_sequences": len(clips)}
    name = f"evaluation_{folder.absolute().name}"
    result.write(workdir, name)
    for line in result.table():
        _log.info(line)
    _log.info("written: %s", workdir / f"{name}.json")
