"""Damaged files and odd values: a result that is right, or one sentence."""

import random
import re
import shutil
import subprocess
import sys

import pytest

from tests.program import results_of
from tests.survival.conftest import ROOT
from tests.survival.fuzz import TARGETS
from tests.survival.test_kills import TRAINING

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("target", [*TARGETS, "config"])
def test_readers_return_or_say_what_is_wrong(target, budget, request):
    """Within limits on memory and time, which a process of its own has."""
    if target == "arrays":
        pytest.importorskip("xarray", reason="it reads NetCDF for us")
    seed = random.SystemRandom().randrange(10**6) if budget(0, 1) else 0
    command = [sys.executable, "-m", "tests.survival.fuzz", target]
    done = subprocess.run(
        [*command, str(budget(80, 3000)), str(seed)],
        cwd=ROOT, text=True, capture_output=True, timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    print(f"{done.stdout.strip()}, seed {seed}")
    counts = [int(count) for count in re.findall(r": (\d+)", done.stdout)]
    assert all(count > 0 for count in counts) and len(counts) == 2


def test_a_flipped_bit_of_a_run_changes_no_figure_in_silence(program, budget, tmp_path):
    run = tmp_path / "run"
    assert program(*TRAINING, f"--workdir={run}")[0] == 0
    expected = results_of(run)["model"]
    rng, seen = (
        random.Random(3),
        {"the same": 0, "another": 0, "refused": 0},
    )
    files = sorted(path for path in run.rglob("*") if path.is_file())
    files = [path for path in files if path.stat().st_size]
    for _ in range(budget(2, 150)):
        path, saved = rng.choice(files), tmp_path / "saved"
        shutil.rmtree(saved, ignore_errors=True)
        shutil.copytree(run, saved)
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        status, text = program("--mode=evaluate", f"--workdir={run}")
        if status == 2:
            assert "error: " in text
            seen["refused"] += 1
        elif results_of(run)["model"] == expected:
            seen["the same"] += 1
        else:
            # The config is text that a user may change: another value is no damage.
            assert "is damaged" in text or path.name == "config.json", path
            seen["another"] += 1
        shutil.rmtree(run)
        saved.rename(run)
    print(f"flipped bits: {seen}")
