"""The metrics of a test set as a typed result: its JSON, CSV rows and log lines."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.metrics.accumulate import MetricSummary
from convlstm_jax.metrics.registry import conventions, format_value, in_order
from convlstm_jax.viz.player import ClipName


def clip_namer(
    clips: Any, films: Sequence[str] | None, conditions: Sequence[str]
) -> Callable[[int], ClipName]:
    """A function that names the clip at an index; films and conditions may be none."""

    def name(index: int) -> ClipName:
        condition = conditions[int(clips[index]["condition"])] if conditions else ""
        return ClipName(index, films[index] if films else "", condition)

    return name


@dataclass(frozen=True)
class WorstClip:
    """A clip with one of the largest mean squared errors of the model."""

    name: ClipName
    mse: float | None  # mean over its frames; None where it is not a number


@dataclass
class EvaluationResult:
    """What an evaluation found."""

    contenders: dict[str, MetricSummary]  # by name, "model" first
    condition_counts: dict[str, int] = field(default_factory=dict)  # clips of each
    worst_clips: list[WorstClip] = field(default_factory=list)
    drawn_clips: list[ClipName] = field(default_factory=list)  # that pictures show
    step: int | None = None  # training steps of the weights
    data: dict[str, Any] = field(default_factory=dict)  # facts about the test set

    @property
    def model(self) -> MetricSummary:
        """The metrics of the model."""
        return self.contenders["model"]

    @property
    def num_lead_times(self) -> int:
        """The number of predicted frames, 0 of a classifier."""
        curves = [c.per_lead_time.values() for c in self.contenders.values()]
        return max((len(curve) for each in curves for curve in each), default=0)

    def worst_notes(self) -> list[str]:
        """A line about each of the worst clips, for the player of the report."""
        mean = format_value(self.model.total.get("mse"))
        places = ("highest", "second highest", "third highest", "fourth highest")
        return [
            f"The {place} MSE of all sequences: {format_value(clip.mse)} on average "
            f"over its frames (mean of all: {mean})."
            for place, clip in zip(places, self.worst_clips, strict=False)
        ]

    def to_json(self) -> dict[str, Any]:
        """The content of `evaluation.json`."""
        contenders = self.contenders.items()
        values: dict[str, Any] = {name: _to_json(c) for name, c in contenders}
        values["per_lead_time"] = {name: c.per_lead_time for name, c in contenders}
        if diagrams := {name: c.diagrams for name, c in contenders if c.diagrams}:
            values["diagrams"] = diagrams
        if self.worst_clips:
            values["worst_clips"] = [
                {**clip.name.to_json(), "mse": clip.mse} for clip in self.worst_clips
            ]
        if self.drawn_clips:
            values["drawn_clips"] = [clip.to_json() for clip in self.drawn_clips]
        if self.condition_counts:
            values["per_condition"] = {
                condition: {"count": count}
                | {name: _to_json(c.per_condition[condition]) for name, c in contenders}
                for condition, count in self.condition_counts.items()
            }
        if self.step is not None:
            values["step"] = self.step
        return {**values, "data": self.data, "conventions": conventions()}

    def rows(self) -> Iterator[tuple[str, str, int | str, str, float | None]]:
        """(contender, metric, lead time, condition, value) of `evaluation.csv`."""
        for name, contender in self.contenders.items():
            for metric, value in contender.total.items():
                yield name, metric, "all", "all", value
            for metric, values in contender.per_lead_time.items():
                for lead_time, value in enumerate(values, start=1):
                    yield name, metric, lead_time, "all", value
            for condition, summary in contender.per_condition.items():
                for metric, value in summary.total.items():
                    yield name, metric, "all", condition, value

    def table(self) -> list[str]:
        """Lines for the log, one a metric, the contenders side by side."""

        def line(label: str, values: Iterable[str]) -> str:
            return f"{label:34}" + "".join(f"{value:>16}" for value in values)

        lines = [line("", self.contenders)]
        # That one is cross_entropy_nats under its longer name.
        for metric in in_order(self.model.total.keys() - {LONG_NAME}):
            values = [c.total.get(metric) for c in self.contenders.values()]
            lines.append(line(metric, map(format_value, values)))
        for condition, count in self.condition_counts.items():
            summaries = [c.per_condition[condition] for c in self.contenders.values()]
            values = [summary.total.get("mse") for summary in summaries]
            label = f"mse, {condition} ({count} clip{'' if count == 1 else 's'})"
            lines.append(line(label, map(format_value, values)))
        for name, metrics in self.model.per_class.items():
            words = [f"{key} {format_value(value)}" for key, value in metrics.items()]
            lines.append(f"class {name}: {', '.join(words)}")
        return lines

    def write(self, workdir: Path, name: str = "evaluation") -> None:
        """Writes `evaluation.json` and `evaluation.csv`, or of another name."""
        with atomic_file(workdir / f"{name}.json") as partial:
            text = json.dumps(self.to_json(), indent=2) + "\n"
            partial.write_text(text, encoding="utf-8")
        table = io.StringIO(newline="")
        writer = csv.writer(table)
        writer.writerow(["contender", "metric", "lead_time", "condition", "value"])
        for *names, value in self.rows():
            # All digits; nothing where there is no value.
            writer.writerow([*names, "" if value is None else repr(value)])
        content = table.getvalue().encode("utf-8", errors="backslashreplace")
        with atomic_file(workdir / f"{name}.csv") as partial:
            partial.write_bytes(content)


LONG_NAME = "cross_entropy_nats_per_frame"


def _to_json(summary: MetricSummary) -> dict[str, Any]:
    """The total, with what does not fit into numbers beside it where there is any."""
    nested = {
        "mean_over_lead_times": summary.mean_over_lead_times,
        "per_class": summary.per_class,
        "confusion": summary.confusion,
    }
    return {**summary.total, **{key: value for key, value in nested.items() if value}}
