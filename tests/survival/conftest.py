"""Runs of the program that are started often, and how often."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(config, items):
    """The long form has no limit of time."""
    for item in items:
        if config.getoption("--full") and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture
def budget(request):
    """`budget(few, many)`: `many` with `--full`."""
    return lambda few, many: many if request.config.getoption("--full") else few


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Runs main.py, killed after some seconds if given: its status and its output."""
    output = tmp_path_factory.mktemp("output") / "output.txt"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.survival.nursery"],
        cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    ) as nursery:  # fmt: skip

        def run(*arguments, seconds=None):
            wanted = {"arguments": list(map(str, arguments)), "output": str(output)}
            print(json.dumps(wanted | {"seconds": seconds}), file=nursery.stdin)
            nursery.stdin.flush()
            status = int(nursery.stdout.readline())
            text = output.read_text(errors="replace")
            assert "Traceback" not in text, text
            assert status in (0, 2, -9), (status, text)
            return status, text

        yield run
        nursery.stdin.close()
