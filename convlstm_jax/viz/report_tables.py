"""The tables of figures in the report of an evaluation, as HTML."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from convlstm_jax.viz.metric_names import (
    format_value,
    in_order,
    metric_name,
    series_name,
    without_repeats,
)

# Of a table whose columns are metrics; with more of them they become its rows.
_MOST_COLUMNS = 7


def metric_table(series: Mapping[str, Mapping[str, float | None]]) -> str:
    """One table: series by metric."""
    metrics = in_order({key for values in series.values() for key in values})
    if not metrics:
        return ""
    if len(metrics) > _MOST_COLUMNS:
        return _tall_metric_table(series, metrics)
    heads = []
    for metric in metrics:
        name = metric_name(metric)
        unit = f"<small>{escape(name.unit)}</small>" if name.unit else ""
        heads.append(f'<th scope="col">{escape(name.label)} {name.arrow}{unit}</th>')
    rows = [
        _row(key, [values.get(metric) for metric in metrics])
        for key, values in series.items()
    ]
    return (
        '<h2>Metrics</h2><div class="card"><table><thead><tr><th></th>'
        f"{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="hint">↓ lower is better, ↑ higher is better; averaged over all '
        "predicted frames and all sequences.</p>"
    )


def _tall_metric_table(
    series: Mapping[str, Mapping[str, float | None]], metrics: Sequence[str]
) -> str:
    """The same turned: metric by series, for more metrics than a page is wide."""
    heads = "".join(f'<th scope="col">{escape(series_name(key))}</th>'
                    for key in series)  # fmt: skip
    rows = []
    for metric in metrics:
        name = metric_name(metric)
        unit = f" <small>{escape(name.unit)}</small>" if name.unit else ""
        cells = _cells([values.get(metric) for values in series.values()])
        rows.append(
            f'<tr><th scope="row">{escape(name.label)} {name.arrow}{unit}</th>'
            f"{cells}</tr>"
        )
    return (
        '<h2>Metrics</h2><div class="card"><table><thead><tr><th></th>'
        f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="hint">↓ lower is better, ↑ higher is better; over all predicted '
        "frames and all sequences.</p>"
    )


def lead_time_tables(per_lead_time: Mapping[str, Mapping[str, Any]]) -> str:
    """Folded tables, one a metric: series by lead time."""
    tables = []
    keys = {key for values in per_lead_time.values() for key in values}
    for metric in in_order(without_repeats(keys)):
        curves = {
            key: list(values[metric])
            for key, values in per_lead_time.items()
            if metric in values
        }
        length = max(len(curve) for curve in curves.values())
        heads = "".join(f'<th scope="col">{t}</th>' for t in range(1, length + 1))
        rows = "".join(_row(key, curve) for key, curve in curves.items())
        tables.append(
            f"<h3>{escape(metric_name(metric).axis_label)}</h3>"
            f'<div class="card"><table><thead><tr><th>lead time (frames)</th>{heads}'
            f"</tr></thead><tbody>{rows}</tbody></table></div>"
        )
    return _folded("Metrics per lead time as tables", tables)


def condition_tables(per_condition: Mapping[str, Mapping[str, Any]]) -> str:
    """Folded tables, one a metric: conditions by series.

    Args:
      per_condition: condition → "count", its clips, and series → metric → value.
    """
    series = [key for key in next(iter(per_condition.values()), {}) if key != "count"]
    keys = {
        metric
        for values in per_condition.values()
        for key in series
        for metric, value in values[key].items()
        if value is None or isinstance(value, (int, float))
    }
    tables = []
    for metric in in_order(without_repeats(keys)):
        heads = "".join(f'<th scope="col">{escape(series_name(key))}</th>'
                        for key in series)  # fmt: skip
        rows = "".join(
            f'<tr><th scope="row">{escape(condition)}</th><td>{values["count"]}</td>'
            f"{_cells([values[key].get(metric) for key in series])}</tr>"
            for condition, values in per_condition.items()
        )
        tables.append(
            f"<h3>{escape(metric_name(metric).axis_label)}</h3>"
            '<div class="card"><table><thead><tr><th>condition</th>'
            f'<th scope="col">clips</th>{heads}</tr></thead><tbody>{rows}</tbody>'
            "</table></div>"
        )
    return _folded("Metrics per condition as tables", tables)


def class_table(per_class: Mapping[str, Mapping[str, Any]]) -> str:
    """One table: classes by precision, recall and the like."""
    if not per_class:
        return ""
    figures = list(next(iter(per_class.values())))
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in figures)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        f"{_cells([values[figure] for figure in figures])}</tr>"
        for name, values in per_class.items()
    )
    return (
        '<h2>Classes</h2><div class="card"><table><thead><tr><th></th>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _folded(summary: str, tables: Sequence[str]) -> str:
    if not tables:
        return ""
    return f"<details><summary>{summary}</summary>{''.join(tables)}</details>"


def _cells(values: Sequence[Any]) -> str:
    return "".join(f"<td>{escape(_figure(value))}</td>" for value in values)


def _figure(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return format_value(None if value is None else float(value))


def _row(series: str, values: Sequence[Any]) -> str:
    """One row of figures; that of the model stands out."""
    style = ' class="model"' if series == "model" else ""
    name = escape(series_name(series))
    return f'<tr{style}><th scope="row">{name}</th>{_cells(values)}</tr>'
