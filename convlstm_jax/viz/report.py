"""The report of an evaluation: one HTML file that holds everything it shows."""

import base64
import datetime
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError
from convlstm_jax.viz.metric_names import (
    OUTPUTS,
    format_value,
    metric_name,
    series_name,
)
from convlstm_jax.viz.report_player import SCRIPT, PlayerClip, player_html
from convlstm_jax.viz.report_style import STYLE
from convlstm_jax.viz.report_tables import (
    class_table,
    condition_tables,
    lead_time_tables,
    metric_table,
)

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
    "cross_entropy",
    "cross_entropy_nats",
    "mae",
    "rainfall_mse",
    "accuracy",
)
_PER_LEAD_TIME = "per_lead_time"
_PER_CONDITION = "per_condition"


def write_report(
    path: str | Path,
    *,
    title: str,
    config: Mapping[str, Any],
    data_description: str,
    results: Mapping[str, Any],
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
      data_description: Which data the figures are of, in words: source, digits, number
        of sequences, and any source that was used in another's place.
      results: What the evaluation found: series ("model", "copy_last", ...) → metric →
        value; under "per_lead_time" series → metric → values [T_out]; under
        "per_condition" condition → series → metric → value; entries that share no
        metric with the model (number of sequences, conventions) are listed as facts.
      pictures: (caption, PNG, GIF or JPEG file) in the order in which they are shown.
      clips: What the player shows; without any there is none.

    Raises:
      UserError: A picture is missing or of another kind, or the report cannot be
        written.
    """
    series, facts = _sort_results(results)
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="written">written {escape(now)}</p>',
        f'<p class="data"><b>Data.</b> {escape(data_description)}</p>',
        _tiles(series),
        metric_table(series),
        lead_time_tables(results.get(_PER_LEAD_TIME) or {}),
        condition_tables(results.get(_PER_CONDITION) or {}),
        class_table(results.get("model", {}).get("per_class") or {}),
        player_html(clips),
        _figures(pictures),
        _plain_table("Facts", facts),
        _plain_table("Configuration", flatten(config)),
    ]
    script = f"<script>{SCRIPT}</script>\n" if clips else ""
    scripts = _hash(SCRIPT) if clips else "'none'"
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(STYLE)}; "
        f"script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        "<body>\n<main>\n" + "\n".join(filter(None, parts)) + "\n</main>\n"
        f"{script}</body>\n</html>\n"
    )
    with atomic_file(path) as partial:
        # File names need not be text.
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")


def _hash(text: str) -> str:
    """The source of a script or style as a content security policy names it."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


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


def _sort_results(
    results: Mapping[str, Any],
) -> tuple[dict[str, dict[str, float | None]], dict[str, Any]]:
    """Tells the series of metrics from the other entries of an evaluation."""
    series: dict[str, dict[str, float | None]] = {}
    facts: dict[str, Any] = {}
    model = results.get("model", {})
    for name, value in results.items():
        if name in (_PER_LEAD_TIME, _PER_CONDITION):
            continue
        # A baseline shares metrics with the model; a mapping that does not is a fact.
        if isinstance(value, Mapping) and (not model or model.keys() & value.keys()):
            metrics = _metrics(value)
            if metrics:
                series[name] = metrics
                continue
        facts[name] = value
    return series, flatten(facts)


def _metrics(values: Mapping[str, Any]) -> dict[str, float | None]:
    """The entries that are numbers (None: not measured)."""
    return {
        key: None if value is None else float(value)
        for key, value in values.items()
        # The long name of cross_entropy_nats; one column of the two is enough.
        if key != "cross_entropy_nats_per_frame"
        if value is None or _is_number(value)
    }


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, bool)


def _tiles(series: Mapping[str, Mapping[str, float | None]]) -> str:
    """The headline figures of the model, each against the best baseline."""
    model = series.get("model", {})
    tiles = []
    for metric in [key for key in _HEADLINES if key in model][:4]:
        name = metric_name(metric)
        tiles.append(
            '<div class="tile">'
            f'<div class="name">{escape(name.label)} {name.arrow}'
            f"<br>{escape(name.unit) or '&nbsp;'}</div>"
            f'<div class="value">{escape(format_value(model[metric]))}</div>'
            f"{_versus(metric, series)}</div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _versus(metric: str, series: Mapping[str, Mapping[str, float | None]]) -> str:
    """One line that compares the model with the best of the baselines."""
    value = series["model"][metric]
    higher = metric_name(metric).higher_is_better
    rivals = {
        key: rival
        for key, values in series.items()
        if key not in OUTPUTS
        and (rival := values.get(metric)) is not None
        and math.isfinite(rival)
    }
    if value is None or not math.isfinite(value) or not rivals or higher is None:
        return ""
    best = (max if higher else min)(rivals, key=lambda key: rivals[key])
    better = value > rivals[best] if higher else value < rivals[best]
    word = "equal to"
    if value != rivals[best]:
        word = "better than" if better else "worse than"
    style = "better" if better else ("worse" if value != rivals[best] else "")
    return (
        f'<div class="versus"><span class="{style}">{word}</span> '
        f"{escape(series_name(best))} ({escape(format_value(rivals[best]))})</div>"
    )


def _figures(pictures: Sequence[tuple[str, str | Path]]) -> str:
    if not pictures:
        return ""
    figures = []
    for caption, name in pictures:
        picture = Path(name)
        media_type = _MEDIA_TYPES.get(picture.suffix.lower())
        if media_type is None:
            raise UserError(
                f"The picture '{picture}' has the suffix '{picture.suffix}', but a "
                f"report shows {', '.join(_MEDIA_TYPES)} only."
            )
        try:
            content = picture.read_bytes()
        except OSError as error:
            raise UserError(
                f"The picture '{picture}' cannot be read ({error.strerror}), but every "
                "picture of a report must be there."
            ) from error
        text = base64.b64encode(content).decode("ascii")
        figures.append(
            f'<figure class="card"><figcaption>{escape(caption)}</figcaption>'
            f'<img alt="{escape(caption)}" src="data:{media_type};base64,{text}">'
            "</figure>"
        )
    return f"<h2>Pictures</h2>{''.join(figures)}"


def _plain_table(title: str, values: Mapping[str, Any]) -> str:
    if not values:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(str(key))}</th>'
        f"<td>{escape(_plain(value))}</td></tr>"
        for key, value in values.items()
    )
    return (
        f'<h2>{escape(title)}</h2><div class="card"><table class="plain"><tbody>{rows}'
        "</tbody></table></div>"
    )


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
