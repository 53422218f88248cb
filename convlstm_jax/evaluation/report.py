"""The report of an evaluation: one HTML file that holds everything it shows."""

import base64
import datetime
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError
from convlstm_jax.evaluation.result import LONG_NAME, EvaluationResult
from convlstm_jax.metrics.accumulate import MetricSummary
from convlstm_jax.metrics.baselines import OUTPUTS, contender_label
from convlstm_jax.metrics.registry import (
    find_metric,
    format_value,
    in_order,
    without_repeats,
)
from convlstm_jax.viz.player import PlayerClip, player_data

_MEDIA_TYPES = {
    ".png": "image/png",
    ".gif": "image/gif",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
}
# Shown large at the top, the first four of these that were measured.
_HEADLINES = (
    "mse",
    "ssim",
    "psnr_db",
    "cross_entropy_nats",
    "mae",
    "rainfall_mse",
    "accuracy",
)


def write_report(
    path: str | Path,
    *,
    title: str,
    config: Mapping[str, Any],
    data_description: str,
    result: EvaluationResult,
    pictures: Sequence[tuple[str, str | Path]] = (),
    clips: Sequence[PlayerClip] = (),
) -> None:
    """Writes the report as one file that opens from disk, without any network.

    Pictures are embedded, all text is escaped, and the page forbids itself to load
    anything, or to run or follow any script or style but its own, which it knows by
    their hashes. It follows the reader's light or dark setting.

    Args:
        path: The HTML file to write.
        title: The headline.
        config: All settings; nested ones are shown with dotted names.
        data_description: The data that the metrics are of, in words.
        result: What the evaluation found.
        pictures: (caption, PNG, GIF or JPEG file) in the order in which they are shown.
        clips: What the player shows; without any there is none.

    Raises:
        UserError: A picture is missing or of another kind, or the report cannot be
            written.
    """
    files = resources.files("convlstm_jax.evaluation")
    style, script, template = (
        files.joinpath(f"report.{suffix}").read_text(encoding="utf-8")
        for suffix in ("css", "js", "html.j2")
    )
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True}
    data, factor = player_data(clips)
    facts = {"step": result.step} if result.step is not None else {}
    # The description stands above.
    data_facts = {k: v for k, v in result.data.items() if k != "description"}
    page = environment.from_string(template).render(
        title=title,
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        data_description=data_description,
        tiles=_tiles(result),
        metrics=_metric_table(result),
        lead_times=_lead_time_tables(result),
        conditions=_condition_tables(result),
        classes=_class_table(result),
        worst_clips=_worst_clips_table(result),
        conventions=_conventions_table(result),
        clips=clips,
        player_data=data,
        shrunk=factor,
        pictures=[(caption, _embedded(Path(name))) for caption, name in pictures],
        facts=_plain_table(flatten({**facts, "data": data_facts})),
        config=_plain_table(flatten(config)),
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )
    with atomic_file(path) as partial:
        # File names need not be text.
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level with dotted names, in their own order."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


@dataclass(frozen=True)
class _Row:
    label: str
    cells: Sequence[str]
    unit: str = ""
    is_model: bool = False


@dataclass(frozen=True)
class _Table:
    heads: Sequence[str]
    rows: Sequence[_Row]
    title: str = ""
    corner: str = ""


def _hash(text: str) -> str:
    """The source of a script or style as a content security policy names it."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _keys(summaries: Iterable[MetricSummary]) -> set[str]:
    """The metrics of any of them, one that has two names once."""
    return {key for summary in summaries for key in summary.total} - {LONG_NAME}


def _tiles(result: EvaluationResult) -> list[dict[str, Any]]:
    """The headline metrics of the model, each against the best baseline."""
    model = result.contenders.get("model", MetricSummary({})).total
    return [
        {
            "metric": find_metric(key),
            "value": format_value(model[key]),
            "versus": _versus(key, result),
        }
        for key in [key for key in _HEADLINES if key in model][:4]
    ]


def _versus(key: str, result: EvaluationResult) -> tuple[str, str, str] | None:
    """Style, words and rival of the comparison with the best of the baselines."""
    value = result.model.total[key]
    rivals = {
        name: rival
        for name, contender in result.contenders.items()
        if name not in OUTPUTS
        and (rival := contender.total.get(key)) is not None
        and math.isfinite(rival)
    }
    if value is None or not math.isfinite(value) or not rivals:
        return None
    higher = find_metric(key).direction == "higher"
    best = (max if higher else min)(rivals, key=lambda name: rivals[name])
    words = f"{contender_label(best)} ({format_value(rivals[best])})"
    if value == rivals[best]:
        return "", "equal to", words
    style = "better" if (value > rivals[best]) == higher else "worse"
    return style, f"{style} than", words


def _metric_table(result: EvaluationResult) -> _Table:
    """Metric by contender."""
    contenders = result.contenders.values()
    rows = []
    for key in in_order(_keys(contenders)):
        metric = find_metric(key)
        cells = [format_value(contender.total.get(key)) for contender in contenders]
        rows.append(_Row(f"{metric.label} {metric.arrow}", cells, metric.unit))
    return _Table([contender_label(name) for name in result.contenders], rows)


def _lead_time_tables(result: EvaluationResult) -> list[_Table]:
    """One table a metric: contender by lead time."""
    keys = {key for c in result.contenders.values() for key in c.per_lead_time}
    tables = []
    for key in in_order(without_repeats(keys)):
        rows = [
            _Row(
                contender_label(name),
                [format_value(value) for value in contender.per_lead_time[key]],
                is_model=name == "model",
            )
            for name, contender in result.contenders.items()
            if key in contender.per_lead_time
        ]
        length = max(len(row.cells) for row in rows)
        heads = [str(lead_time) for lead_time in range(1, length + 1)]
        title = find_metric(key).axis_label
        tables.append(_Table(heads, rows, title, "lead time (frames)"))
    return tables


def _condition_tables(result: EvaluationResult) -> list[_Table]:
    """One table a metric: condition by contender."""
    contenders = result.contenders
    heads = list(map(contender_label, contenders))
    keys = {key for c in contenders.values() for key in _keys(c.per_condition.values())}
    tables = []
    for key in in_order(without_repeats(keys)):
        rows = []
        for condition, count in result.condition_counts.items():
            values = [
                contender.per_condition[condition].total.get(key)
                for contender in contenders.values()
            ]
            clips = f"{count:,} clip{'' if count == 1 else 's'}"
            rows.append(_Row(condition, [format_value(v) for v in values], clips))
        tables.append(_Table(heads, rows, find_metric(key).axis_label, "condition"))
    return tables


def _class_table(result: EvaluationResult) -> _Table:
    """Class by precision, recall and the like."""
    per_class = result.contenders.get("model", MetricSummary({})).per_class
    rows = [
        _Row(name, [format_value(value) for value in metrics.values()])
        for name, metrics in per_class.items()
    ]
    return _Table(list(next(iter(per_class.values()), {})), rows)


def _worst_clips_table(result: EvaluationResult) -> _Table:
    rows = [
        _Row(
            f"Test sequence {clip.name.index}",
            [clip.name.film or "–", clip.name.condition or "–", format_value(clip.mse)],
        )
        for clip in result.worst_clips
    ]
    return _Table(["film", "condition", "MSE"], rows)


def _conventions_table(result: EvaluationResult) -> _Table:
    """What each metric shown means."""
    found = {}
    for key in in_order(_keys(result.contenders.values())):
        metric = find_metric(key)
        label = metric.label.split(" at ")[0]
        if metric.convention:
            found[f"{label}, {metric.unit}" if metric.unit else label] = metric
    return _plain_table({label: m.convention for label, m in found.items()})


def _plain_table(values: Mapping[str, Any]) -> _Table:
    return _Table([], [_Row(str(key), [_plain(v)]) for key, v in values.items()])


def _plain(value: Any) -> str:
    """A setting as it would be written in JSON, texts without quotes."""
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError):
        return str(value)


def _embedded(picture: Path) -> str:
    """A picture as the address that holds its content."""
    media_type = _MEDIA_TYPES.get(picture.suffix.lower())
    if media_type is None:
        raise UserError(
            f"the picture '{picture}' has the suffix '{picture.suffix}': it must be "
            f"one of {', '.join(_MEDIA_TYPES)}"
        )
    try:
        content = picture.read_bytes()
    except OSError as error:
        raise UserError(
            f"the picture '{picture}' cannot be read ({error.strerror}): it must be a "
            "file"
        ) from error
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
