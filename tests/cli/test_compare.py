"""`--mode=compare`: what differs between runs, and their metrics."""

import json

import pytest

from convlstm_jax.cli import config_file
from convlstm_jax.cli.compare import table
from convlstm_jax.cli.experiment import experiment
from convlstm_jax.cli.workdir import save_config
from tests.program import run


@pytest.fixture
def runs(tmp_path):
    """Three runs of a sweep; the last one has not been evaluated."""
    folders = []
    sweep = [("a", "8,8", 91.5), ("b", "16,8", 80.25), ("c", "4,4", None)]
    for name, features, mse in sweep:
        folder = tmp_path / name
        folder.mkdir()
        config = config_file.load("moving_mnist:quick")
        changes = {"model.features": features, "seed": str(len(folders))}
        save_config(folder, experiment(config, changes).config)
        if mse is not None:
            model = {"mse": mse, "ssim": 0.5, "vmaf": 1.0}
            content = {"model": model, "zeros": {"mse": 1.0}}
            (folder / "evaluation.json").write_text(json.dumps(content))
        folders.append(folder)
    return folders


def test_the_fields_that_differ_and_the_metrics_best_first(runs, capsys):
    lines = [line.split() for line in table(runs)]
    assert lines == [
        ["run", "model.features", "seed", "mse", "↓", "ssim", "↑"],
        [str(runs[1]), "16,8", "1", "80.25", "0.5000"],
        [str(runs[0]), "8,8", "0", "91.50", "0.5000"],
        [str(runs[2]), "4,4", "2", "–", "–"],
    ]
    assert run("--mode=compare", *runs) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == lines


def test_fields_that_a_run_does_not_have(runs, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    config = config_file.load("moving_mnist_recurrent:quick")
    save_config(other, experiment(config).config)
    header, *rows = table([runs[0], other])
    start = header.index("model.layer_norm")
    assert {row[start:].split()[0] for row in rows} == {"–", "False"}


def test_what_is_no_run_is_refused(runs, tmp_path, capsys):
    for arguments, message in (
        (["--mode=compare"], "--mode=compare needs the folders of runs, as in runs/*"),
        (["--mode=compare", *runs, tmp_path], "holds no config.json: it must be the"),
        (["--mode=compare", runs[0], "--num_frames=3"], "--num_frames is not allowed"),
    ):
        assert run(*arguments) == 2
        assert message in capsys.readouterr().err
