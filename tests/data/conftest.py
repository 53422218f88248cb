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
