"""`--mode=describe`: the parameters of the published networks, by their configs."""

import pytest

from tests.program import run

pytestmark = pytest.mark.usefixtures("at_root")

MODELS = [
    ("moving_mnist:quick", "528,208"),
    # Table 1 of arXiv:1506.04214.
    ("moving_mnist:5x5-256", "13,524,496"),
    ("moving_mnist:5x5-128-128", "10,042,896"),
    ("moving_mnist:5x5-128-64-64", "7,585,296"),
    ("moving_mnist:9x9-128-128", "11,550,224"),
    ("moving_mnist:9x9-128-64-64", "8,830,480"),
    ("moving_mnist:fc-lstm-2048-2048", "142,667,776"),
    ("moving_mnist_autoencoder:composite-2048-2048", "201,420,800"),
    ("moving_mnist_autoencoder:reconstruct-2048-2048", "142,667,776"),
    ("moving_mnist_next_frame:keras", "746,433"),
    ("moving_squares:keras", "406,681"),
    ("clip_classification:full", "609,506"),
]
WITH_STATISTICS = {"746,433": "746,689", "406,681": "407,001"}


@pytest.mark.parametrize(("config", "parameters"), MODELS)
def test_describe(config, parameters, capsys):
    name, _, preset = config.partition(":")
    assert run(f"--config=configs/{name}.py:{preset}", "--mode=describe") == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"parameters: {parameters}" in lines
    if parameters in WITH_STATISTICS:
        assert f"with batch statistics: {WITH_STATISTICS[parameters]}" in lines
    assert any(line.startswith("multiply-adds per sample: ") for line in lines)
    if name == "clip_classification":
        assert "output: [B, classes] = [B, 2]" in lines
    if name in ("moving_mnist", "moving_mnist_autoencoder"):
        video = f"[B, T, H, W, C] = [B, {3 if preset == 'quick' else 10}, 64, 64, 1]"
        assert f"input: {video}" in lines and f"output: {video}" in lines
        assert (f"reconstruction: {video}" in lines) == preset.startswith("composite")
