"""`--mode=compare`: runs side by side, the fields in which they differ, and metrics."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convlstm_jax.cli import workdir
from convlstm_jax.cli.experiment import leaves
from convlstm_jax.metrics.registry import find_metric, format_value, in_order
from convlstm_jax.paths import read_json

_IGNORED_FIELDS = ("note", "train.trackers")
# Of these as many as the runs have, the first of them ranks.
_METRICS = (
    "mse", "mae", "ssim", "psnr_db", "cross_entropy_nats", "accuracy",
    "balanced_accuracy",
)  # fmt: skip


def run(runs: Sequence[Path]) -> None:
    """Prints a table: a row for each run, the best first, those not evaluated last."""
    print("\n".join(table(runs)))


def table(runs: Sequence[Path]) -> list[str]:
    """The lines of the table."""
    for folder in runs:
        workdir.require_run(folder, checkpoints=False, named="'{}'")
    configs = [leaves(workdir.load_config(folder)) for folder in runs]
    results = [_results(folder) for folder in runs]
    names = dict.fromkeys(name for config in configs for name in config)
    differing = [
        name
        for name in names
        if name not in _IGNORED_FIELDS
        and any(config.get(name) != configs[0].get(name) for config in configs)
    ]
    metrics = [m for m in in_order(_METRICS) if any(m in found for found in results)]

    def rank(index: int) -> tuple[bool, float]:
        value = results[index].get(metrics[0]) if metrics else None
        if value is None:
            return True, 0.0
        sign = -1 if find_metric(metrics[0]).direction == "higher" else 1
        return False, sign * value

    header = ["run", *differing]
    header += [f"{metric} {find_metric(metric).arrow}".strip() for metric in metrics]
    rows = [
        [
            str(runs[index]),
            *(_shown(configs[index], name) for name in differing),
            *(format_value(results[index].get(metric)) for metric in metrics),
        ]
        for index in sorted(range(len(runs)), key=rank)
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]


def _shown(config: dict[str, Any], name: str) -> str:
    if name not in config:
        return "–"  # The field does not apply.
    value = config[name]
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _results(folder: Path) -> dict[str, float | None]:
    """The metrics of a run's model; none before its evaluation."""
    try:
        content = read_json(folder / "evaluation.json")
        return dict(content["model"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
