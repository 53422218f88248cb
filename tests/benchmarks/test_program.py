"""The benchmark of the whole program in small: what it measures, prints and refuses."""

import json

import pytest

from benchmarks import program

TINY = [
    "--config=configs/moving_mnist.py:quick",
    "--config.data.digits=sklearn",
    "--config.data.height=32",
    "--config.data.width=32",
    "--config.task.num_input_frames=2",
    "--config.task.num_output_frames=2",
    "--config.model.features=4",
    "--config.train.batch_size=8",  # Divisible by any number of devices here.
    "--config.train.log_every_steps=2",
    "--config.train.checkpoint_every_steps=3",
    "--config.optimizer.name=adam",
]


def test_rates_and_starts_are_measured(tmp_path, capsys):
    file = tmp_path / "rows.json"
    assert program.main([*TINY, "--rounds=1", f"--json={file}"]) == 0
    document = json.loads(file.read_text())
    (row,) = document["rows"]
    assert row["workload"] == "configs/moving_mnist.py:quick"
    assert row["batch_size"] == 8
    assert row["steps"] == 4  # Between checkpoints, in whole turns.
    for program_rate, bare_rate, ratio in zip(
        row["program"], row["bare"], row["ratio"], strict=True
    ):
        assert program_rate > 0 and bare_rate > 0
        assert ratio == pytest.approx(program_rate / bare_rate)
    assert len(row["ratio"]) == len(row["start_warm_cache_s"]) == 1
    assert min(row["start_warm_cache_s"]) > 0
    assert document["targets"] == {"ratio": 0.95, "start_s": 5.0}
    printed = capsys.readouterr().out
    assert "| ratio, median of 1 rounds of 4 steps (" in printed
    assert "the same, warm cache, best of 1 (" in printed


def test_a_program_that_ends_too_early_is_an_error(capsys):
    assert program.main(["--config=configs/moving_mnist.py:slow"]) == 1
    message = "main.py ended too early: error: --config=configs/moving_mnist.py:slow: "
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--step=3", "unrecognized arguments: --step=3"),
        ("--rounds=0", "--steps must be at least 0 and --rounds at least 1"),
    ],
)
def test_the_command_line_refuses(argument, message, capsys):
    with pytest.raises(SystemExit):
        program.main([argument])
    assert message in capsys.readouterr().err
