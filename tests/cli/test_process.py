import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convlstm_jax.cli import process
from convlstm_jax.errors import UserError


@pytest.mark.parametrize(
    ("version", "is_set"),
    [
        ("0.9.1", False),
        ("0.10.0", True),
        ("0.10.2", True),
        ("0.11.0.dev20260101", True),
        ("0.12.0", False),
        ("1.0.0", False),
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


@pytest.mark.slow
def test_this_jaxlib_knows_the_xla_flags():
    environment = dict(os.environ)
    environment.pop("XLA_FLAGS", None)
    process.choose_xla_flags(environment, importlib.metadata.version("jaxlib"))
    code = "import jax; jax.numpy.ones(3).sum().block_until_ready()"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


NUMERICS = """
import jax, numpy as np
from tests.ops.cases import Case, as_jax, cell_of, draw, engine_of, scan_of

for case in (
    Case("tiles", shape=(1, 3, 16, 16), features=16, channels=16),
    Case("convolutions", kernels=(7, 5), shape=(2, 3, 9, 8), features=8),
):
    def results(make, dtype):
        run = make(cell_of(case, jax.numpy.dtype(dtype)), num_steps=3)
        def loss(arguments):
            return (run(*arguments)[1] ** 2).sum()
        arguments = as_jax(draw(case), dtype)
        return jax.device_get(jax.jit(jax.value_and_grad(loss))(arguments))

    found = results(engine_of, "float32")
    with jax.enable_x64(True):
        exact = results(scan_of, "float64")
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b), (case.name, a.shape)
"""


@pytest.mark.slow
def test_numerics_under_the_xla_flags():
    """A loss and all gradients in float32, against a scan of steps in float64."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    process.choose_xla_flags(environment, importlib.metadata.version("jaxlib"))
    root = Path(__file__).resolve().parents[2]
    subprocess.run(
        [sys.executable, "-c", NUMERICS], env=environment, cwd=root, check=True
    )


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
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("HOME", str(file))
    environment = {}
    process.choose_compilation_cache(environment)
    assert environment == {}


@pytest.mark.parametrize(
    ("environment", "arguments"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_ID": "1"}, None),
        ({"SLURM_STEP_NODELIST": "a", "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"SLURM_STEP_NODELIST": "a,b", "SLURM_STEP_NUM_TASKS": "2"}, {}),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, {}),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, {}),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "localhost:1234",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": "1",
            },
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
    with pytest.raises(UserError, match=r"JAX_NUM_PROCESSES .* and JAX_PROCESS_ID"):
        process.cluster_arguments(
            {
                "JAX_COORDINATOR_ADDRESS": "localhost:1234",
                "JAX_NUM_PROCESSES": count,
                "JAX_PROCESS_ID": index,
            }
        )


def test_processes_that_do_not_meet_are_told(monkeypatch):
    def refuse(**_):
        raise RuntimeError("no\nanswer")

    monkeypatch.setattr(process, "choose_xla_flags", lambda *_: None)
    monkeypatch.setattr(process, "choose_compilation_cache", lambda *_: None)
    monkeypatch.setattr(process, "cluster_arguments", lambda _: {})
    monkeypatch.setattr("jax.distributed.initialize", refuse)
    with pytest.raises(UserError, match="the cluster cannot be joined: no answer"):
        process.set_up()


def test_a_lone_process_is_the_first_of_one(monkeypatch):
    from absl import flags

    monkeypatch.setattr(process, "choose_xla_flags", lambda *_: None)
    monkeypatch.setattr(process, "choose_compilation_cache", lambda *_: None)
    monkeypatch.setattr(process, "cluster_arguments", lambda _: None)
    assert process.set_up() == (0, 1)
    assert flags.FLAGS.is_parsed()


def test_why_processes_part():
    lost = ValueError("UNKNOWN: Gloo AllGather failed:\n Connection reset by peer")
    told = UserError("The checkpoint of step 5 could not be saved")
    told.__cause__ = lost
    for error in (lost, told):
        assert process.why_processes_part(error) == (
            "UNKNOWN: Gloo AllGather failed: Connection reset by peer"
        )
    assert process.why_processes_part(ValueError("no")) == ""
