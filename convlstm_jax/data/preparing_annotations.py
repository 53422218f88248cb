"""Prepares the videos below a folder that have annotations beside them."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from convlstm_jax.data.annotated_videos import FoundAnnotated, find_annotated_videos
from convlstm_jax.data.cvat import check_frames
from convlstm_jax.data.prepared import ANNOTATED_VIDEOS
from convlstm_jax.data.prepared_annotations import annotation_facts, annotations_of
from convlstm_jax.data.preparing import Item, Opened, Report, Work, prepare
from convlstm_jax.data.preparing_progress import leave_out
from convlstm_jax.data.preparing_videos import open_fitted
from convlstm_jax.data.video_readers import UnreadableVideo
from convlstm_jax.errors import UserError


def prepare_annotated_videos(
    path: str, output: Path, *, settings: Mapping[str, Any], report: Report
) -> dict[str, Any]:
    """Decodes annotated videos once; writes their frames and when what is seen in them.

    Args:
      path: the folder, see `find_annotated_videos`.
      output: see `prepare`.
      settings: the arguments of `open_annotated_videos` by name.
      report: see `prepare`.

    Returns:
      The manifest, see `prepare`. A video without sound annotations has none there.

    Raises:
      UserError: a file is to be refused, there are no videos, or `prepare` raises it.
    """
    root = Path(path).expanduser()
    strict = settings["bad_files"] == "refuse"
    problems: list[str] = []
    found: list[FoundAnnotated] = []
    for wrong, here in find_annotated_videos(path):
        problems += wrong
        found += here
        told = [*wrong, *(one.problem for one in here if one.problem)]
        if told and strict:
            raise UserError(told[0])
    if not found:
        raise UserError(f"The folder '{path}' holds no video.")

    def item_of(one: FoundAnnotated) -> Item:
        facts = None
        if one.annotations is not None:
            facts = annotation_facts(one.annotations, root)
        open_one = partial(_open, one, settings)
        return Item(one.name, one.path, {"annotations": facts}, open_one)

    def judge(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            # Of a video that ends early, the annotations may well tell more.
            if entry["annotations"] is not None and not entry["problem"]:
                try:
                    annotations = annotations_of(entry["annotations"], root)
                    check_frames(annotations, entry["frames"])
                except UserError as error:
                    leave_out(entry, "with annotations of frames it lacks", str(error))

    work = Work(
        ANNOTATED_VIDEOS,
        path,
        json.loads(json.dumps(settings)),
        [item_of(one) for one in found],
        {"annotations that cannot be read": problems} if problems else {},
        judge,
    )
    return prepare(work, output, report)


def _open(one: FoundAnnotated, settings: Mapping[str, Any]) -> Opened:
    if one.annotations is None:
        raise UnreadableVideo(one.problem)
    opened = open_fitted(one.path, settings)
    if settings["bad_files"] == "refuse":
        check_frames(one.annotations, opened.reader.num_frames)
    return opened
