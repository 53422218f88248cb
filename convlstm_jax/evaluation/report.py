"""The report of an evaluation: one HTML file that holds everything it shows."""

import base64
import dataclasses
import datetime
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from flax.traverse_util import flatten_dict
from markupsafe import Markup

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.evaluation.result import LONG_NAME, EvaluationResult
from convlstm_jax.metrics.baselines import OUTPUTS, contender_label
from convlstm_jax.metrics.registry import (
    Metric,
    find_metric,
    format_value,
    in_order,
    without_repeats,
)
from convlstm_jax.viz.player import PlayerClip, player_data

# Shown large at the top, the first four of these that were measured.
_HEADLINES = (
    "mse", "ssim", "psnr_db", "cross_entropy_nats", "mae", "rainfall_mse", "accuracy",
)  # fmt: skip


# A difference of less than this share is not called better or worse: other seeds give
# as much.
_SMALL_SHARE = 0.02
# Above this mean of the pixels, nobody would forecast a black frame.
_DARK = 0.2


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
    """Writes the report as one HTML file that opens from disk, without any network.

    Pictures are (caption, PNG or GIF file), clips what the player shows. Everything is
    embedded, all text is escaped, and the page's content security policy allows its own
    script and style alone, by their hashes.
    """
    files = resources.files("convlstm_jax.evaluation")
    result = _without_needless_zeros(result)
    style, script, template = (
        files.joinpath(f"report.{suffix}").read_text(encoding="utf-8")
        for suffix in ("css", "js", "html.j2")
    )
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"number": format_value, "label": contender_label}
    data, factor = player_data(clips)
    facts = {"step": result.step} if result.step is not None else {}
    # The description stands above.
    data_facts = {k: v for k, v in result.data.items() if k != "description"}
    contenders = result.contenders
    page = environment.from_string(template).render(
        title=title,
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        data_description=data_description,
        result=result,
        headlines=_headlines(result),
        metrics=_metrics(contender.total for contender in contenders.values()),
        lead_times=_metrics((c.per_lead_time for c in contenders.values()), once=True),
        conditions=_metrics(
            (s.total for c in contenders.values() for s in c.per_condition.values()),
            once=True,
        ),
        classes=contenders["model"].per_class if "model" in contenders else {},
        clips=clips,
        player_data=data,
        shrunk=factor,
        pictures=[(caption, _embedded(Path(name))) for caption, name in pictures],
        settings={
            "Facts": _settings(facts | {"data": data_facts}),
            "Configuration": _settings(config),
        },
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )
    with atomic_file(path) as partial:
        # File names need not be text.
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")


def _without_needless_zeros(result: EvaluationResult) -> EvaluationResult:
    """The result without the all-zeros forecast where frames are not dark."""
    zeros = result.contenders.get("zeros")
    # Its absolute error is the mean of the true pixels.
    mean_pixel = zeros.total.get("mae_per_pixel") if zeros else None
    if mean_pixel is None or mean_pixel <= _DARK:
        return result
    others = {name: c for name, c in result.contenders.items() if name != "zeros"}
    return dataclasses.replace(result, contenders=others)


def _hash(text: str) -> str:
    """The source of a script or style as a content security policy names it."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _metrics(totals: Iterable[Mapping[str, Any]], once: bool = False) -> list[Metric]:
    """The metrics of any contender; once: without those that repeat another."""
    keys = {key for total in totals for key in total} - {LONG_NAME}
    keys = without_repeats(keys) if once else keys
    return [find_metric(key) for key in in_order(keys)]


def _headlines(result: EvaluationResult) -> list[tuple[Metric, str, str]]:
    """Metrics to show large, and how the model compares with the baselines."""
    if "model" not in result.contenders:
        return []
    shown = [key for key in _HEADLINES if key in result.model.total][:4]
    return [(find_metric(key), *_versus(key, result)) for key in shown]


def _versus(key: str, result: EvaluationResult) -> tuple[str, str]:
    """How the model compares with the best of the baselines, "" without any."""
    totals = {name: c.total.get(key) for name, c in result.contenders.items()}
    finite = {k: v for k, v in totals.items() if v is not None and math.isfinite(v)}
    rivals = {name: v for name, v in finite.items() if name not in OUTPUTS}
    if "model" not in finite or not rivals:
        return "", ""
    value, higher = finite["model"], find_metric(key).direction == "higher"
    best = (max if higher else min)(rivals, key=lambda name: rivals[name])
    words = f"{contender_label(best)} ({format_value(rivals[best])})"
    if value == rivals[best]:
        return "equal to", words
    if abs(value - rivals[best]) < _SMALL_SHARE * abs(rivals[best]):
        return "about equal to", words
    return ("better" if (value > rivals[best]) == higher else "worse") + " than", words


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Dotted name → the setting as it would be in JSON, texts without quotes."""
    settings: dict[str, str] = {}
    for name, value in flatten_dict(config, sep=".").items():
        text = json.dumps(value, ensure_ascii=False, default=str).strip('"')
        settings[name] = (value or '""') if isinstance(value, str) else text
    return settings


def _embedded(picture: Path) -> str:
    """A PNG or GIF picture as the address that holds its content."""
    text = base64.b64encode(picture.read_bytes()).decode("ascii")
    return f"data:image/{picture.suffix[1:].lower()};base64,{text}"
