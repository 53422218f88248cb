"""The program as a function, and what its runs hold, for tests."""

import json
import socket
from pathlib import Path

import jax

from convlstm_jax.cli import build
from convlstm_jax.cli.entry import main
from convlstm_jax.cli.experiment import experiment
from convlstm_jax.cli.workdir import load_config


def run(*arguments):
    """The exit code of `main.py` with these arguments."""
    return main(["main.py", *map(str, arguments)])


def free_address():
    """A port of this machine that nobody listens on, where processes may meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def experiment_of(folder):
    """The validated experiment of a run."""
    return experiment(load_config(Path(folder)))


def trained_model(folder):
    """The objective of a run, and the step and the variables of its best checkpoint."""
    config = experiment_of(folder)
    objective = build.build_objective(config)
    step, variables = build.load_variables(objective, config, folder)
    return objective, step, jax.device_get(variables)


def first_test_clips(folder, count):
    """The first test clips of a run."""
    source = build.build_sources(experiment_of(folder)).test
    return [source[index] for index in range(count)]


def results_of(folder):
    """What the evaluation of a run has written."""
    return json.loads((folder / "evaluation.json").read_text())
