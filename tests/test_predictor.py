"""A trained model in Python: `load`, streams, and folders to share."""

import json
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import jax
import numpy as np
import pytest

import convlstm_jax
from convlstm_jax import ConvLSTM, ConvLSTMCell, RecurrentLayer, load
from convlstm_jax.cli import config_file, pretrained, train
from convlstm_jax.cli.build import build_objective, build_training
from convlstm_jax.cli.experiment import experiment
from convlstm_jax.errors import UserError
from convlstm_jax.training.sharding import data_mesh
from tests.program import run as main_py

ROOT = Path(__file__).parent.parent
TINY = (
    "--config.train.num_steps=1", "--config.train.eval_every_steps=1",
    "--config.train.batch_size=1", "--config.train.num_validation_sequences=2",
    "--config.eval.num_sequences=2", "--config.eval.num_pictures=1",
    "--config.model.features=4,3", "--config.data.height=32", "--config.data.width=32",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The workdir of a tiny training."""
    workdir = tmp_path_factory.mktemp("run") / "run"
    assert main_py("--config=moving_mnist:quick", f"--workdir={workdir}", *TINY) == 0
    return workdir


def frames(*shape):
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def test_a_run_predicts_clips_batches_and_streams(run):
    predictor = load(run)
    batch = frames(2, 5, 32, 32, 1)
    expected = predictor.predict(batch, 4)
    assert expected.shape == (2, 4, 32, 32, 1) and expected.dtype == np.float32
    np.testing.assert_allclose(predictor.predict(batch / 255, 4), expected, atol=1e-6)
    np.testing.assert_allclose(predictor.predict(batch[1], 4), expected[1], atol=1e-6)
    grey = predictor.predict(batch[1, ..., 0])
    np.testing.assert_allclose(grey, expected[1, :3, ..., 0], atol=1e-6)
    # The network itself, by its parameters.
    logits = predictor.network.apply(
        predictor.variables, (batch / 255).astype(np.float32), 4
    )
    np.testing.assert_allclose(jax.nn.sigmoid(logits), expected, atol=1e-6)

    state = predictor.init(2)
    sizes = jax.tree.map(np.shape, state)
    for t in range(5):
        state, prediction = predictor.step(state, batch[:, t])
    assert jax.tree.map(np.shape, state) == sizes
    np.testing.assert_allclose(prediction, expected[:, 0], atol=1e-6)
    np.testing.assert_allclose(predictor.forecast(state, 4), expected, atol=1e-6)


def test_a_batch_smaller_than_the_devices_is_trained(run):
    assert "each batch is shared by 1 of 8 devices" in (run / "log.txt").read_text()


def test_what_does_not_fit_is_refused(run, tmp_path):
    predictor = load(run)
    for shape, message in (
        ((32, 32), r"the shape \(32, 32\)|must be \[T, H, W, C\]"),
        ((3, 30, 32, 1), "30×32 pixels: height and width must be multiples of 4"),
        ((3, 32, 32, 3), "of 3 channels: this network takes 32×32 of 1"),
        ((2, 0, 32, 32, 1), "with T of at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            predictor.predict(frames(*shape))
    with pytest.raises(UserError, match="'nowhere' does not exist"):
        load("nowhere")
    with pytest.raises(UserError, match=r"holds no config\.json"):
        load(tmp_path)
    with pytest.raises(UserError, match="holds a run: choose another folder"):
        predictor.save_pretrained(run)


def test_a_saved_network_is_the_same_one(run, tmp_path):
    predictor, folder, clip = load(run), tmp_path / "shared", frames(3, 32, 32, 1)
    predictor.save_pretrained(folder)
    assert {file.name for file in folder.iterdir()} == {
        "config.json", "model.safetensors", "README.md"
    }  # fmt: skip
    again = load(folder)
    assert again.training_step == 1
    np.testing.assert_array_equal(again.predict(clip), predictor.predict(clip))
    card = (folder / "README.md").read_text()
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["conventions"]["mse"] in card
    assert "| mse | " in card and "model | copy_last | zeros |" in card

    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:100])
    with pytest.raises(UserError, match=r"model\.safetensors' cannot be read"):
        load(folder)
    weights.write_bytes(content)
    config = folder / "config.json"
    text = config.read_text()
    values = json.loads(text)
    values["model"]["features"] = [4, 4]
    config.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"does not fit config\.json: params/"):
        load(folder)


def test_a_hub_is_asked_where_it_is_installed(run, tmp_path, monkeypatch):
    hub = types.ModuleType("huggingface_hub")
    hub.__spec__ = types.SimpleNamespace()
    stored = tmp_path / "stored"

    class HfApi:
        def create_repo(self, name, exist_ok):
            assert name == "someone/network" and exist_ok

        def upload_folder(self, repo_id, folder_path):
            assert repo_id == "someone/network"
            Path(folder_path).rename(stored)
            Path(folder_path).mkdir()

    def snapshot_download(name, allow_patterns):
        if name != "someone/network":
            raise OSError("404")
        assert "model.safetensors" in allow_patterns
        return str(stored)

    hub.HfApi, hub.snapshot_download = HfApi, snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    predictor, clip = load(run), frames(3, 32, 32, 1)
    predictor.push_to_hub("someone/network")
    found = load("hf://someone/network")
    np.testing.assert_array_equal(found.predict(clip), predictor.predict(clip))
    with pytest.raises(UserError, match="hf://nobody/x cannot be downloaded: 404"):
        load("hf://nobody/x")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        load("hf://someone/network")


def test_the_public_names_exist_and_start_nothing():
    for name in convlstm_jax.__all__:
        assert getattr(convlstm_jax, name) is not None
    assert set(convlstm_jax.__all__) <= set(dir(convlstm_jax))
    with pytest.raises(AttributeError, match="has no attribute 'ConvLSTN'"):
        _ = convlstm_jax.ConvLSTN
    program = (
        "import time, flax.linen, jax, sys; start = time.perf_counter()\n"
        "from convlstm_jax import ConvLSTM, ConvLSTMCell, RecurrentLayer\n"
        "took = time.perf_counter() - start\n"
        "assert not jax._src.xla_bridge._backends, 'a device was started'\n"
        "print(took)\n"
        "print(*(m for m in ('av', 'grain', 'ml_collections') if m in sys.modules))\n"
        "sys.modules['ml_collections'] = None\n"
        "try:\n    from convlstm_jax import load\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    seconds, packages, without_data = done.stdout.splitlines()
    assert float(seconds) < 1
    assert packages == ""
    expected = "this needs ml_collections, which is not installed: pip install "
    assert without_data == expected + "'convlstm_jax[data]'"


def test_the_layer_is_the_cell_over_time():
    video = np.random.default_rng(0).random((2, 3, 6, 5, 2)).astype(np.float32)
    layer = ConvLSTM(3, kernel_size=5, reverse=True)
    cell = ConvLSTMCell(features=3, input_kernel_size=5, recurrent_kernel_size=5)
    variables = layer.init(jax.random.key(0), video)
    lengths = np.array([3, 2])
    found = layer.apply(variables, video, seq_lengths=lengths)
    expected = RecurrentLayer(cell, reverse=True).apply(
        variables, video, seq_lengths=lengths
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_wheel_asks_for_what_requirements_txt_lists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    listed = {line for line in lines if line and not line.startswith("#")}
    assert listed == {*project["dependencies"], *extras["data"]}
    for extra in ("radar", "tracking", "xarray"):
        lines = (ROOT / f"requirements-{extra}.txt").read_text().splitlines()
        more = {line for line in lines if line and line[0] not in "#-"}
        assert more == set(extras[extra])


def test_a_training_may_begin_with_the_weights_of_another(run, tmp_path):
    other, options = tmp_path / "other", [*TINY, f"--init_from={run}"]
    # So small a step changes no weight.
    options.append("--config.optimizer.learning_rate=1e-30")
    assert main_py("--config=moving_mnist:quick", f"--workdir={other}", *options) == 0
    assert f"arrays are those of step 1 of {run}" in (other / "log.txt").read_text()
    found, given = load(other).variables, load(run).variables
    jax.tree.map(np.testing.assert_array_equal, found, given)


def test_arrays_that_do_not_fit_begin_anew_and_are_named(run, caplog):
    mesh = data_mesh(jax.devices()[:1])

    def started(config, *changes):
        overrides = dict(change.removeprefix("--config.").split("=") for change in TINY)
        overrides |= dict(change.split("=") for change in changes)
        chosen = experiment(config_file.load(config), overrides)
        optimizer, state = build_training(chosen, build_objective(chosen), mesh)
        with caplog.at_level("INFO"):
            start = pretrained.load(str(run), named="{}")
            return state, train.with_weights(state, optimizer, start, mesh)

    state, found = started("moving_mnist:quick", "model.features=4,5")
    given = load(run).variables["params"]
    for layer in ("encoder_0", "forecaster_0"):
        jax.tree.map(np.testing.assert_array_equal, found.params[layer], given[layer])
    arrays = (s.params["encoder_1"]["bias"] for s in (state, found))
    np.testing.assert_array_equal(*arrays)
    name = "params/forecaster_1/recurrent_kernel"
    line = f"{name} of shape (3, 3, 5, 20) begins anew: shape (3, 3, 3, 12) there"
    assert line in caplog.text
    with pytest.raises(UserError, match="holds no array of this network"):
        started("moving_mnist_recurrent:quick")


def test_a_run_to_begin_with_must_exist(tmp_path, capsys):
    options = ("--init_from=nowhere", f"--workdir={tmp_path / 'a'}", *TINY)
    assert main_py("--config=moving_mnist:quick", *options) == 2
    assert "--init_from=nowhere does not exist" in capsys.readouterr().err


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A folder with an untrained classifier of clips."""
    sizes = {"model.features": "3", "data.height": "32", "data.width": "32"}
    chosen = experiment(config_file.load("clip_classification:quick"), sizes)
    variables = build_objective(chosen).init(jax.random.key(0), chosen.data.frame_shape)
    folder = tmp_path_factory.mktemp("classifier")
    convlstm_jax.Predictor(chosen, variables, 0).save_pretrained(folder)
    return folder


PAGES = [f"docs/{name}.md" for name in ("library", "streaming", "export")]


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_the_examples_of_the_documents_run(
    run, classifier, page, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    for name in ("paper", "films", "first"):
        Path("runs", name).symlink_to(run)
    Path("runs/shop").symlink_to(classifier)
    text = (ROOT / page).read_text()
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    clips = frames(2, 3, 32, 32, 1).astype(np.float32) / 255
    names = {"clips": clips, "frames": clips[0], "frame": clips[:1, 0]}
    if "paper.jax" in text:
        export = ("--mode=export", f"--workdir={run}", "--output=paper.jax")
        assert main_py(*export) == 0
    for example in examples:
        exec(example.replace("64, 64, 1", "8, 8, 1"), names)
        if "new[0]" in example:  # Of two streams the second starts again.
            for array in jax.tree.leaves(names["state"]):
                assert np.any(array[0]) and not np.any(array[1])
    assert np.shape(names["following"])[-3:] == (32, 32, 1)
    if "streaming" in page:
        assert names["predicted"].shape == (12, 1, 32, 32, 1)
        jax.tree.map(np.testing.assert_array_equal, names["restored"], names["state"])
        assert set(names["probabilities"]) == {"normal", "theft"}
        assert names["next_frames"].shape == (2, 32, 32, 1)
