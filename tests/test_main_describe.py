"""`--mode=describe`: the parameters of the published networks, by their configs."""

import pytest

from tests.program import run

pytestmark = pytest.mark.usefixtures("at_root")

MODELS = [
    ("bubbles:20to20", "10,178,497"),
    ("bubbles:5to5-256", "38,490,049"),
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
    (
        "moving_mnist_autoencoder:composite-2048-2048 --config.model.conditional=true",
        "268,529,664",
    ),
    (
        "moving_mnist_autoencoder:reconstruct-2048-2048 --config.task.name=predict "
        "--config.model.conditional=true",
        "176,222,208",
    ),
    ("moving_mnist_next_frame:keras", "746,433"),
    ("moving_squares:keras", "406,681"),
    ("clip_classification:full", "609,506"),
    ("clip_classification:full --config.model.patch_size=1", "557,666"),
    ("moving_mnist_recurrent:quick", "129,536"),
    # OpenSTL's ConvLSTM-S and -L, what is never used left out.
    ("moving_mnist_recurrent:small", "11,675,648"),
    ("moving_mnist_recurrent:large", "26,115,072"),
]
WITH_STATISTICS = {"746,433": "746,689", "406,681": "407,001"}
PRODUCTS = {
    "11,675,648": "56,790,351,872 (56.8 G)",
    "26,115,072": "127,023,710,208 (127.0 G)",
}


@pytest.mark.parametrize(("config", "parameters"), MODELS)
def test_describe(config, parameters, capsys):
    config, *fields = config.split()
    name, _, preset = config.partition(":")
    assert run(f"--config=configs/{name}.py:{preset}", "--mode=describe", *fields) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"parameters: {parameters}" in lines
    if parameters in WITH_STATISTICS:
        assert f"with batch statistics: {WITH_STATISTICS[parameters]}" in lines
    products = f"multiply-adds per sample: {PRODUCTS.get(parameters, '')}"
    assert any(line.startswith(products) for line in lines)
    if name == "clip_classification":
        assert "output: [B, classes] = [B, 2]" in lines
    if name in ("moving_mnist", "moving_mnist_autoencoder"):
        video = f"[B, T, H, W, C] = [B, {3 if preset == 'quick' else 10}, 64, 64, 1]"
        assert f"input: {video}" in lines and f"output: {video}" in lines
        assert (f"reconstruction: {video}" in lines) == preset.startswith("composite")
