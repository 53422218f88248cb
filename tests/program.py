"""The program as a function, and where its processes meet, for tests."""

import socket
from pathlib import Path

from convlstm_jax.cli.entry import main
from convlstm_jax.cli.experiment import experiment
from convlstm_jax.cli.saved_config import load_config


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
    config, _ = load_config(Path(folder))
    return experiment(config)
