"""The benchmark in small: what it compares, refuses, prints and writes."""

import importlib
import importlib.util
import json

import numpy as np
import pytest

from benchmarks import memory, train_step
from benchmarks.contenders import CONTENDERS, OURS, Settings
from benchmarks.worker import ContenderError, Worker
from benchmarks.workloads import (
    CELL_LAYERS,
    OPENSTL_NETWORKS,
    WORKLOADS,
    draw,
    tiny,
)

MEASURED_AS_PYTORCH = ("pytorch_channels_last", "pytorch_compile")
PEERS = [
    name
    for name, contender in CONTENDERS.items()
    if "layer" in contender.systems and name not in (OURS, "pytorch_compile_model")
]


@pytest.fixture(autouse=True)
def few_calls_and_processes(monkeypatch):
    """Memory is read, in processes of their own, once from each peer's code."""
    memory = train_step._memory

    def memory_of_a_layer(workload, problem, entry):
        if workload.system != "layer" or entry.name in MEASURED_AS_PYTORCH:
            return {}
        return memory(workload, problem, entry)

    monkeypatch.setattr(train_step, "_memory", memory_of_a_layer)
    monkeypatch.setattr(train_step, "_TURN_SECONDS", 0.01)


def run(tmp_path, *arguments):
    file = tmp_path / "rows.json"
    options = ["--tiny", "--rounds=2", f"--json={file}", *arguments]
    assert train_step.main(options) == 0
    return json.loads(file.read_text())


@pytest.mark.parametrize(
    ("workloads", "peers"),
    [
        (["layer_16x16"], PEERS),
        (["encoder_forecaster", "openstl_convlstm_s"], ["pytorch", "flax_rnn"]),
        (["mingru_64x64"], ["our_convlstm"]),
    ],
)
def test_every_peer_does_the_same_work_and_is_measured(
    workloads, peers, tmp_path, capsys
):
    """The peers that are installed; see requirements-bench.txt."""
    installed = {
        name
        for name in peers
        if all(map(importlib.util.find_spec, CONTENDERS[name].packages))
    }
    document = run(
        tmp_path,
        f"--workloads={','.join(workloads)}",
        f"--contenders={','.join(sorted(installed))}",
    )
    rows = {(row["workload"], row["contender"]): row for row in document["rows"]}
    left = {(one["workload"], one["contender"]) for one in document["left"]}
    assert {contender for _, contender in left} <= {"pytorch_compile"}
    if workloads != ["layer_16x16"]:
        installed.discard("flax_rnn")  # It has layers alone.
    assert set(rows) | left == {
        (workload, contender)
        for workload in workloads
        for contender in (OURS, *installed)
    }
    for (workload, contender), row in rows.items():
        # Which of the two takes longer is noise at these shapes.
        assert row["train_ms"] > 0 and row["forward_ms"] > 0
        assert row["compile_s"] > 0
        if workload == "layer_16x16" and contender not in MEASURED_AS_PYTORCH:
            assert row["process_memory_mb"] > row["peak_memory_mb"] > 0
    assert rows[workloads[0], OURS]["ratio"] == 1
    assert rows[workloads[0], OURS]["rounds"] == 2
    printed = capsys.readouterr().out
    assert "jaxlib" in printed
    assert f"| {OURS} | " in printed


@pytest.mark.parametrize("peer", ["pytorch", "plain_scan"])
@pytest.mark.parametrize("system", [*CELL_LAYERS, *OPENSTL_NETWORKS])
def test_peers_compute_the_same_with_every_cell(system, peer):
    """In this process, outputs and every gradient."""
    if peer == "pytorch":
        pytest.importorskip("torch", reason="needs torch")
    (workload,) = (tiny(one) for one in WORKLOADS if one.system == system)
    problem = draw(workload)
    expected, found = (
        importlib.import_module(f"benchmarks.contenders.{CONTENDERS[name].module}")
        .build(name, workload, problem, Settings())
        .results()
        for name in (OURS, peer)
    )
    assert train_step.check(peer, found, expected, 1e-4) > 0


def test_a_contender_that_differs_is_an_error():
    expected = {"outputs": np.ones((2, 3)), "cell/bias": np.arange(4.0)}
    near = {"outputs": np.ones((2, 3)), "cell/bias": np.arange(4.0) + 1e-6}
    assert 0 < train_step.check("peer", near, expected, 1e-5) < 1e-5
    for change, message in (
        ({"cell/bias": np.arange(4.0) + 1e-3}, "peer differs from convlstm_jax in ce"),
        ({"outputs": np.full((2, 3), np.nan)}, "differs"),
        ({"outputs": np.ones((3, 2))}, r"outputs the shape \(3, 2\)"),
    ):
        with pytest.raises(ContenderError, match=message):
            train_step.check("peer", near | change, expected, 1e-5)
    with pytest.raises(ContenderError, match=r"do not both give \['cell/bias'\]"):
        train_step.check("peer", {"outputs": np.ones((2, 3))}, expected, 1)


def test_a_worker_that_fails_says_why():
    workload = tiny(WORKLOADS[0])
    problem = draw(workload)
    problem.weights.pop("cell/bias")
    worker = Worker(OURS, workload, problem, Settings())
    message = "convlstm_jax ended while asked to c"
    try:
        with pytest.raises(ContenderError, match=message):
            worker.ask("compile")
    finally:
        worker.stop()


def test_a_contender_that_fails_leaves_the_others_their_figures(
    tmp_path, monkeypatch, capsys
):
    turns, take_turn = [], train_step.Entrant.take_turn

    def fails_in_its_second_turn(entrant):
        turns.append(entrant.entry.label)
        if turns[-1] == "flax_rnn" and turns.count("flax_rnn") == 2:
            raise ContenderError("flax_rnn ended while asked to train: out of memory")
        take_turn(entrant)

    monkeypatch.setattr(train_step.Entrant, "take_turn", fails_in_its_second_turn)
    file = tmp_path / "rows.json"
    options = ["--tiny", "--rounds=2", "--slow-rounds=2", f"--json={file}"]
    peers = ["--workloads=layer_16x16", "--contenders=flax_rnn"]
    assert train_step.main([*options, *peers]) == 1
    document = json.loads(file.read_text())
    assert [row["contender"] for row in document["rows"]] == [OURS]
    assert [one["failed"] for one in document["left"]] == [True]
    printed = capsys.readouterr().out
    assert "layer_16x16, flax_rnn failed: flax_rnn ended while asked to tr" in printed


def test_multiply_adds_are_those_of_the_published_systems():
    counts = {w.name: w.multiply_adds / w.batch_size for w in WORKLOADS}
    assert counts["openstl_convlstm_s"] == pytest.approx(56.8e9, rel=1e-3)
    by_hand = 10 * 16 * 16 * 25 * (16 + 128) * 4 * 128
    assert counts["layer_16x16"] == by_hand
    assert counts["openstl_predrnn"] == pytest.approx(116.0e9, rel=1e-3)
    assert counts["openstl_predrnnpp"] == pytest.approx(171.7e9, rel=1e-3)
    assert counts["minlstm_64x64"] == 20 * 64 * 64 * 9 * 64 * 3 * 64
    assert counts["convgru_64x64"] == 10 * 64 * 64 * 9 * (64 + 64) * 3 * 64
    flows = 25 * (32 * (64 + 64) + 32 * 26)
    by_hand = 10 * 32 * 32 * (flows + 3 * 64 * (9 * 64 + 13 * 64))
    assert counts["trajgru_32x32"] == by_hand


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workloads=layer"], "'layer' is unknown: it must be one of layer_16x16, "),
        (["--contenders=tensorflow"], "'tensorflow' is unknown: it must be one of "),
        (["--rounds=0"], "--rounds is 0: it must be at least 1"),
    ],
)
def test_the_command_line_refuses(arguments, message, capsys):
    with pytest.raises(SystemExit):
        train_step.main(arguments)
    assert message in capsys.readouterr().err


def test_memory_options_are_measured(tmp_path, capsys):
    file = tmp_path / "rows.json"
    shape = ["--frames=16", "--side=9", "--features=5", "--rounds=1"]
    contenders = "--contenders=default,checkpoint"
    assert memory.main([*shape, contenders, f"--json={file}"]) == 0
    default, checkpoint = json.loads(file.read_text())["rows"]
    assert default["contender"] == "default"
    assert checkpoint["kept_memory_mb"] < default["kept_memory_mb"]
    assert "| checkpoint | " in capsys.readouterr().out
