"""What tests of radar composites share."""

import contextlib
import io

import pytest


@pytest.fixture
def pysteps():
    with contextlib.redirect_stdout(io.StringIO()):  # Where its configuration lies.
        return pytest.importorskip(
            "pysteps", reason="pysteps is not installed (requirements-radar.txt)"
        )


@pytest.fixture(autouse=True)
def cache_of_the_test(tmp_path_factory, monkeypatch):
    """Decoded frames of a test are nobody else's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CONVLSTM_CACHE_DIR", str(folder))
