"""`--mode=import --from=pytorch` as a user runs it, on a file of PyTorch itself."""

import numpy as np
import pytest

from tests.interop import pytorch_tutorial
from tests.program import run

FEATURES, HEIGHT, WIDTH = (3, 2), 24, 16
BUBBLES = [
    "--config=configs/bubbles.py:quick",
    "--config.model.features=3,2",
    f"--config.data.height={HEIGHT}",
    f"--config.data.width={WIDTH}",
    "--config.data.num_validation_sequences=8",
    "--config.data.num_test_sequences=8",
    "--config.train.num_validation_sequences=8",
    "--config.eval.num_sequences=8",
    "--config.eval.batch_size=8",
    "--config.eval.num_pictures=0",
]


pytestmark = pytest.mark.usefixtures("at_root", "quick_to_compile")


@pytest.mark.slow
def test_an_imported_run_predicts_what_pytorch_does_and_is_evaluated(
    torch, tmp_path, capsys
):
    theirs = pytorch_tutorial.build(
        torch, 1, FEATURES, (HEIGHT, WIDTH), activation="relu"
    )
    checkpoint, folder = tmp_path / "bubbles.pth", tmp_path / "imported"
    torch.save(theirs.state_dict(), checkpoint)
    source = ["--mode=import", "--from=pytorch", f"--checkpoint={checkpoint}"]
    assert run(*source, *BUBBLES, f"--workdir={folder}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"imported {checkpoint} (pytorch):" in lines
    cell = "sequential.convlstm2.convLSTMcell"
    assert any(f"{cell}.W_co " in line and "-> params/layer_1/peephole of o" in line
               for line in lines)  # fmt: skip
    assert any("predictions stay the same" in line for line in lines)

    clip = np.random.default_rng(1).uniform(size=(5, HEIGHT, WIDTH, 1))
    np.save(tmp_path / "clip.npy", clip.astype(np.float32))
    paths = [f"--input={tmp_path / 'clip.npy'}", f"--output={tmp_path / 'next.npy'}"]
    assert run("--mode=predict", f"--workdir={folder}", *paths, "--num_frames=3") == 0
    frames = np.load(tmp_path / "clip.npy")[None].transpose(0, 1, 4, 2, 3)
    expected = pytorch_tutorial.predict(torch, theirs, frames, 3)[0]
    assert expected.std() > 0.05
    np.testing.assert_allclose(
        np.load(tmp_path / "next.npy"), expected, rtol=0, atol=1e-5
    )

    assert run("--mode=evaluate", f"--workdir={folder}") == 0
    assert (folder / "evaluation.json").exists()


def test_a_file_for_frames_of_another_size_is_refused(torch, tmp_path, capsys):
    theirs = pytorch_tutorial.build(torch, 1, FEATURES, (8, 16), activation="relu")
    checkpoint, folder = tmp_path / "bubbles.pth", tmp_path / "imported"
    torch.save(theirs.state_dict(), checkpoint)
    source = ["--mode=import", "--from=pytorch", f"--checkpoint={checkpoint}"]
    assert run(*source, *BUBBLES, f"--workdir={folder}") == 2
    error = capsys.readouterr().err
    assert "W_ci has shape (3, 8, 16), expected (3, 24, 16)" in error
    assert error.count("\n") == 1
    assert not folder.exists()
