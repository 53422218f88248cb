"""Compiler flags, cache, cluster and Ctrl-C."""

import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convlstm_jax import waiting
from convlstm_jax.cli import process
from convlstm_jax.cli.process import interruptible
from convlstm_jax.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("version", "is_set"),
    [
        ("0.9.1", False),
        ("0.10.0", True),
        ("0.12.0", False),
        ("unknown", False),
    ],
)
def test_xla_flags_are_set_for_tried_versions_alone(version, is_set):
    environment = {}
    process.choose_xla_flags(environment, version)
    assert ("XLA_FLAGS" in environment) == is_set


def test_xla_flags_of_the_user_stay():
    for theirs in ("", "--xla_dump_to=x"):
        environment = {"XLA_FLAGS": theirs}
        process.choose_xla_flags(environment, "0.10.2")
        assert environment == {"XLA_FLAGS": theirs}


def test_this_jaxlib_knows_the_xla_flags():
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    process.choose_xla_flags(environment, importlib.metadata.version("jaxlib"))
    code = "import jax; jax.devices()"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_compiled_programs_are_kept_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    environment = {}
    process.choose_compilation_cache(environment)
    folder = tmp_path / ".cache" / "convlstm_jax" / "xla"
    assert folder.is_dir()
    assert environment == {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }


def test_the_cache_of_the_user_stays_and_no_home_means_no_cache(tmp_path, monkeypatch):
    environment = {"JAX_COMPILATION_CACHE_DIR": "/somewhere"}
    process.choose_compilation_cache(environment)
    assert environment == {"JAX_COMPILATION_CACHE_DIR": "/somewhere"}
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    environment = {}
    process.choose_compilation_cache(environment)
    assert environment == {}


def test_devices_that_are_not_there():
    code = "from convlstm_jax.cli.process import default_backend; default_backend()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cuda"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "UserError: JAX finds no device (" in done.stderr
    assert "JAX_PLATFORMS, which is 'cuda', must be unset" in done.stderr


COORDINATOR = {"JAX_COORDINATOR_ADDRESS": "localhost:1234"}


@pytest.mark.parametrize(
    ("environment", "arguments"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_ID": "1"}, None),
        ({"SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"SLURM_STEP_NUM_TASKS": "2"}, {}),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, {}),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, {}),
        (
            {**COORDINATOR, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"},
            {
                "coordinator_address": "localhost:1234",
                "num_processes": 2,
                "process_id": 1,
            },
        ),
    ],
)
def test_a_cluster_is_told_from_the_environment(environment, arguments):
    assert process.cluster_arguments(environment) == arguments


@pytest.mark.parametrize(("count", "index"), [("", "0"), ("2", "2"), ("2", "x")])
def test_half_a_cluster_is_refused(count, index):
    half = {**COORDINATOR, "JAX_NUM_PROCESSES": count, "JAX_PROCESS_ID": index}
    with pytest.raises(UserError, match=r"JAX_NUM_PROCESSES .* JAX_PROCESS_ID"):
        process.cluster_arguments(half)


def test_setting_up_joins_a_cluster_if_there_is_one(monkeypatch):
    def refuse(**_):
        raise RuntimeError("no\nanswer")

    monkeypatch.setattr(process, "choose_xla_flags", lambda *_: None)
    monkeypatch.setattr(process, "choose_compilation_cache", lambda *_: None)
    monkeypatch.setattr(process, "cluster_arguments", lambda _: None)
    assert process.set_up() == (0, 1)
    assert process.flags.FLAGS.is_parsed()
    monkeypatch.setattr(process, "cluster_arguments", lambda _: {})
    monkeypatch.setattr("jax.distributed.initialize", refuse)
    with pytest.raises(UserError, match="the cluster cannot be joined: no answer"):
        process.set_up()


def test_waiting_for_the_others_of_a_cluster_is_told(monkeypatch, capsys):
    monkeypatch.setattr(process, "choose_xla_flags", lambda *_: None)
    monkeypatch.setattr(process, "choose_compilation_cache", lambda *_: None)
    monkeypatch.setattr(process, "cluster_arguments", lambda _: {})
    told = "waiting for the other processes of the cluster\n"
    for silent, expected in ((60, ""), (0.01, told)):
        monkeypatch.setattr(waiting, "SILENT_SECONDS", silent)
        monkeypatch.setattr("jax.distributed.initialize", lambda: time.sleep(0.3))
        assert process.set_up() == (0, 1)
        assert capsys.readouterr().out == expected


def test_why_processes_part():
    lost = ValueError("UNKNOWN: Gloo AllGather failed:\n Connection reset by peer")
    told = UserError("The checkpoint of step 5 could not be saved")
    told.__cause__ = lost
    for error in (lost, told):
        assert process.why_processes_part(error) == (
            "UNKNOWN: Gloo AllGather failed: Connection reset by peer"
        )
    assert process.why_processes_part(ValueError("no")) == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_an_exception_and_the_former_handler_comes_back(number):
    former = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), interruptible():
            os.kill(os.getpid(), number)
            time.sleep(5)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, former)


def test_an_ignored_ctrl_c_stays_ignored():
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, former)


def test_the_program_ends_at_once_and_quietly_while_it_starts(tmp_path):
    arguments = ("--config=configs/moving_mnist.py:quick", f"--workdir={tmp_path}")
    program = subprocess.Popen(
        [sys.executable, "main.py", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    # Extensions are being initialised.
    while "jaxlib" not in Path(f"/proc/{program.pid}/maps").read_text():
        time.sleep(0.01)
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == -signal.SIGINT
    assert errors == ""
