"""How often the program compiles what takes long to compile."""

from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

from convlstm_jax.cli.entry import main

ROOT = Path(__file__).resolve().parent.parent
# Not divisible by the batches: the last ones are filled up.
TINY = [
    "--config=configs/moving_mnist.py:quick",
    "--config.model.features=3",
    "--config.task.num_output_frames=2",
    "--config.data.digits=sklearn",
    "--config.data.height=28",
    "--config.data.width=32",
    "--config.optimizer.name=adam",
    "--config.train.batch_size=8",
    "--config.train.num_steps=3",
    "--config.train.eval_every_steps=2",
    "--config.train.num_validation_sequences=10",
    "--config.train.num_pictures=5",
    "--config.eval.num_sequences=19",
    "--config.eval.batch_size=8",
    "--config.eval.num_pictures=6",
]


@pytest.fixture
def compiled():
    """Counts the programs that are compiled meanwhile, by name."""
    counts: Counter[str] = Counter()

    def count(event, duration_secs, **details):
        if event.endswith("backend_compile_duration"):
            counts[details["fun_name"]] += 1

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(count)
    yield counts
    jax.monitoring.unregister_event_duration_listener(count)


def run(*arguments):
    assert main(["main.py", *map(str, arguments)]) == 0


def of_models(compiled):
    """Of the counts, those of programs that hold a model."""
    names = ("init", "train_step", "eval_step", "forecast", "predict")
    return {
        name: compiled[f"jit({name})"] for name in names if f"jit({name})" in compiled
    }


def test_every_program_is_compiled_once(tmp_path, compiled, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = f"--workdir={tmp_path / 'run'}"
    run(*TINY, folder)
    # Training ends as --mode=evaluate does: with the baselines, in a step of its own.
    once = {"init": 1, "train_step": 1, "forecast": 1}
    assert of_models(compiled) == once | {"eval_step": 2}

    clip = tmp_path / "clip.npy"
    pixels = np.random.default_rng(0).uniform(size=(3, 28, 32, 1))
    np.save(clip, pixels.astype(np.float32))
    for num_frames in (1, 7):
        compiled.clear()
        output = tmp_path / f"{num_frames}.npy"
        run(
            "--mode=predict", folder, f"--input={clip}", f"--output={output}",
            f"--num_frames={num_frames}",
        )  # fmt: skip
        assert of_models(compiled) == {"predict": 1}
    # The frames of a short roll-out are the first of a long one.
    short, long = (np.load(tmp_path / f"{number}.npy") for number in (1, 7))
    assert len(long) == 7
    np.testing.assert_allclose(short, long[:1], atol=1e-6)
