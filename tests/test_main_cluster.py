"""Two processes that train together, of which one is gone at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.program import free_address

ROOT = Path(__file__).resolve().parent.parent
TINY = [
    f"--config={ROOT / 'configs' / 'moving_mnist.py'}:quick",
    "--config.data.digits=sklearn", "--config.data.height=32",
    "--config.data.width=32", "--config.model.features=4",
    "--config.optimizer.name=adam", "--config.optimizer.schedule=constant",
    "--config.train.batch_size=2", "--config.train.num_steps=100000",
    "--config.train.eval_every_steps=100000",
    "--config.train.checkpoint_every_steps=5", "--config.train.log_every_steps=1",
    "--config.train.num_validation_sequences=2", "--config.eval.num_sequences=2",
    "--config.train.trackers=mlflow",
]  # fmt: skip
# A stand-in for the package, which writes down in which process a run is started.
MLFLOW = """
import os
from types import SimpleNamespace
def start_run(run_id, run_name):
    with open("started", "a") as file:
        file.write(os.environ["JAX_PROCESS_ID"])
    data = SimpleNamespace(params={"seed": "0"})
    return SimpleNamespace(info=SimpleNamespace(run_id="one"), data=data)
log_dict = log_metrics = log_artifact = end_run = lambda *_, **__: None
"""


def start(folder, index, address):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": str(index),
        "PYTHONPATH": str(folder),
    }
    with (folder / f"err{index}").open("w") as errors:
        return subprocess.Popen(
            [sys.executable, ROOT / "main.py", f"--workdir={folder / 'run'}", *TINY],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )


@pytest.mark.slow
def test_whoever_is_left_says_so_and_ends(tmp_path):
    (tmp_path / "mlflow.py").write_text(MLFLOW)
    address = free_address()
    first, second = processes = [start(tmp_path, index, address) for index in (0, 1)]
    try:
        checkpoints = tmp_path / "run" / "checkpoints"
        until = time.monotonic() + 120
        while not (checkpoints / "5").is_dir():
            errors = [(tmp_path / f"err{index}").read_text() for index in (0, 1)]
            assert time.monotonic() < until, errors
            assert first.poll() is None and second.poll() is None, errors
            time.sleep(0.1)
        second.send_signal(signal.SIGKILL)
        assert first.wait(timeout=60) == 1
    finally:
        for process in processes:
            process.kill()
            process.wait()
    error = (tmp_path / "err0").read_text()
    assert "error: the processes of the cluster lost contact (" in error
    assert "the same command resumes" in error
    assert "Traceback" not in error
    assert any(checkpoints.iterdir())
    assert (tmp_path / "started").read_text() == "0"
