"""Eight virtual CPU devices, checked shapes, no silent broadcasting, usual Ctrl-C."""

import gc
import importlib.metadata
import os
import shutil
import signal
import tempfile
from pathlib import Path

# Child processes that the tests start shall not inherit another number of devices.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Compiling is what the tests take most of their time for. XLA aborts on unknown flags,
# so they are set only for the versions that they were tried with.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
    )

# Decoded frames and compiled programs are kept from test to test and for processes that
# tests start, but not beside those of the user.
os.environ["CONVLSTM_CACHE_DIR"] = tempfile.mkdtemp(prefix="convlstm_jax-")
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="convlstm_jax-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"

import jax
import jaxtyping
import pytest

# The shapes and types that functions declare are checked whenever a test calls them.
jaxtyping.install_import_hook(
    [f"convlstm_jax.{name}" for name in ("ops", "cells", "layers", "models")],
    "beartype.beartype",
)

# A shell ignores Ctrl-C for what it runs in the background, and so would every test and
# every process that one starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tracing makes many objects that live: looking through them more often frees nothing.
gc.set_threshold(100_000)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser):
    """A longer run of what is drawn at random."""
    help_text = "tests/survival: a thousand kills, thousands of damaged files"
    parser.addoption("--full", action="store_true", help=help_text)


def pytest_sessionfinish():
    """Removes what was kept."""
    for name in ("CONVLSTM_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR"):
        shutil.rmtree(os.environ[name], ignore_errors=True)


@pytest.fixture
def at_root(monkeypatch):
    """In the repository's root, as paths of configs are relative to it."""
    monkeypatch.chdir(Path(__file__).resolve().parent.parent)


@pytest.fixture
def unchecked_types():
    """As outside the tests: annotations are not checked, so that functions must."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
