"""The files and the log lines of an evaluation."""

import csv
import json

from convlstm_jax.evaluation.result import EvaluationResult, WorstClip
from convlstm_jax.metrics.accumulate import MetricSummary
from convlstm_jax.metrics.registry import conventions
from convlstm_jax.viz.player import ClipName


def make_result():
    slow = {"slow": MetricSummary({"mse": 2.5}, {"mse": [2.5, 2.5]})}
    return EvaluationResult(
        {
            "model": MetricSummary(
                {"mse": 1.5, "csi_2_mm_per_h": None},
                {"mse": [1.0, 2.0]},
                mean_over_lead_times={"mse": 1.5},
                per_condition=slow,
            ),
            "zeros": MetricSummary({"mse": 12345.678}, per_condition=slow),
        },
        {"slow": 1},
        worst_clips=[WorstClip(ClipName(3, "a.avi", "slow"), None)],
        drawn_clips=[ClipName(0)],
        step=7,
        data={"num_sequences": 4},
    )


def test_the_json_file(tmp_path):
    make_result().write(tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == {
        "model": {
            "mse": 1.5,
            "csi_2_mm_per_h": None,
            "mean_over_lead_times": {"mse": 1.5},
        },
        "zeros": {"mse": 12345.678},
        "per_lead_time": {"model": {"mse": [1.0, 2.0]}, "zeros": {}},
        "worst_clips": [
            {"index": 3, "film": "a.avi", "condition": "slow", "mse": None}
        ],
        "drawn_clips": [{"index": 0}],
        "per_condition": {
            "slow": {"count": 1, "model": {"mse": 2.5}, "zeros": {"mse": 2.5}}
        },
        "step": 7,
        "data": {"num_sequences": 4},
        "conventions": conventions(),
    }


def test_the_json_of_a_classifier():
    per_class = {"a": {"recall": 1.0}}
    model = MetricSummary({"accuracy": 1.0}, per_class=per_class, confusion=[[2]])
    values = EvaluationResult({"model": model}).to_json()
    assert list(values) == ["model", "per_lead_time", "data", "conventions"]
    expected = {"accuracy": 1.0, "per_class": per_class, "confusion": [[2]]}
    assert values["model"] == expected


def test_what_is_said_of_the_worst_clips():
    (note,) = make_result().worst_notes()
    assert note == (
        "The highest MSE of all sequences: – on average over its frames (mean of all: "
        "1.5000)."
    )


def test_the_csv_file(tmp_path):
    make_result().write(tmp_path)
    with (tmp_path / "evaluation.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["contender", "metric", "lead_time", "condition", "value"]
    assert rows == [
        ["model", "mse", "all", "all", "1.5"],
        ["model", "csi_2_mm_per_h", "all", "all", ""],
        ["model", "mse", "1", "all", "1.0"],
        ["model", "mse", "2", "all", "2.0"],
        ["model", "mse", "all", "slow", "2.5"],
        ["zeros", "mse", "all", "all", "12345.678"],
        ["zeros", "mse", "all", "slow", "2.5"],
    ]


def test_the_log_lines():
    result = make_result()
    assert [line.split() for line in result.table()] == [
        ["model", "zeros"],
        ["mse", "1.5000", "12,346"],
        ["csi_2_mm_per_h", "–", "–"],
        ["mse,", "slow", "(1", "clip)", "2.5000", "2.5000"],
    ]
    assert {len(line) for line in result.table()} == {66}
    result.model.per_class = {"a": {"recall": 0.5, "support": 3}}
    assert result.table()[-1] == "class a: recall 0.5000, support 3"


def test_diagrams_stand_in_the_json_where_there_are_any():
    diagrams = {"rank_histogram": [0.5, None, 0.5]}
    contenders = {
        "model": MetricSummary({}, diagrams=diagrams),
        "zeros": MetricSummary({}),
    }
    values = EvaluationResult(contenders).to_json()
    assert values["diagrams"] == {"model": diagrams}
    assert "diagrams" not in make_result().to_json()
