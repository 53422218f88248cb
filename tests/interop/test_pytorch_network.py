import jax
import numpy as np
import pytest

from convlstm_jax.errors import UserError
from convlstm_jax.interop import pytorch_network
from convlstm_jax.interop.pytorch_network import import_pytorch
from convlstm_jax.models.next_frame import NextFramePredictor
from tests.interop import pytorch_tutorial

FEATURES = (3, 2)
FRAME_SHAPE = (5, 7, 2)
HEIGHT, WIDTH, CHANNELS = FRAME_SHAPE
CELLS = tuple(f"sequential.convlstm{number}.convLSTMcell" for number in (1, 2))


def predictor(**fields):
    fields = {
        "features": FEATURES,
        "kernel_sizes": (3,) * len(fields.get("features", FEATURES)),
        "num_normalized_layers": 2,
        "head_frames": 1,
        "peephole": "location",
        "activation": "relu",
        **fields,
    }
    return NextFramePredictor(**fields)


def shapes(model):
    inputs = jax.ShapeDtypeStruct((1, 2, *FRAME_SHAPE), np.float32)
    return dict(jax.eval_shape(model.init, jax.random.key(0), inputs))


def state_dict(prefix="", peepholes=True):
    """Random arrays under the tutorial's keys, in NumPy alone."""
    draw = np.random.default_rng(0).normal
    arrays = {}
    below = CHANNELS
    for cell, features in zip(CELLS, FEATURES, strict=True):
        if peepholes:
            for gate in "iof":
                size = (features, HEIGHT, WIDTH)
                arrays[f"{cell}.W_c{gate}"] = draw(size=size)
        size = (4 * features, below + features, 3, 3)
        arrays[f"{cell}.conv.weight"] = draw(size=size)
        arrays[f"{cell}.conv.bias"] = draw(size=4 * features)
        norm = cell.replace("convlstm", "batchnorm").removesuffix(".convLSTMcell")
        for name in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"{norm}.{name}"] = draw(size=features)
        arrays[f"{norm}.running_var"] **= 2
        arrays[f"{norm}.num_batches_tracked"] = np.asarray(8)
        below = features
    arrays["conv.weight"] = draw(size=(CHANNELS, below, 3, 3))
    arrays["conv.bias"] = draw(size=CHANNELS)
    return {f"{prefix}{key}": array for key, array in arrays.items()}


def in_cell_list(arrays):
    """The same under the names of the other kind of cells, with names of one's own."""
    renamed = {}
    for key, array in arrays.items():
        for number in (1, 2):
            key = key.replace(
                f"sequential.convlstm{number}.convLSTMcell",
                f"convlstm.cell_list.{number - 1}",
            )
            key = key.replace(f"sequential.batchnorm{number}", f"norms.{number}.bn")
        renamed[f"to_frame.{key}" if key.startswith("conv.") else key] = array
    return renamed


@pytest.fixture
def given(monkeypatch):
    """Lets the importer read a state dict without PyTorch."""

    def give(arrays):
        monkeypatch.setattr(pytorch_network, "read_state_dict", lambda path: arrays)

    return give


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_every_array_goes_to_its_place(prefix, given):
    arrays = state_dict(prefix)
    given(arrays)
    model = predictor()
    variables, report = import_pytorch("w.pth", model, shapes(model))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(
        lambda leaf: leaf.shape, shapes(model)
    )
    params, statistics = variables["params"], variables["batch_stats"]

    def theirs(name):
        return np.float32(arrays[f"{prefix}{name}"])

    layer = params["layer_1"]
    kernel = theirs(f"{CELLS[1]}.conv.weight")
    assert layer["input_kernel"][0, 2, 1, 5] == kernel[5, 1, 0, 2]
    assert layer["recurrent_kernel"][0, 2, 1, 5] == kernel[5, 3 + 1, 0, 2]
    np.testing.assert_array_equal(layer["bias"], theirs(f"{CELLS[1]}.conv.bias"))
    for index, gate in enumerate("ifo"):
        peephole = theirs(f"{CELLS[1]}.W_c{gate}").transpose(1, 2, 0)
        np.testing.assert_array_equal(layer["peephole"][index], peephole)
    norm = statistics["normalization_1"]
    names = {"mean": "running_mean", "var": "running_var"}
    for ours, name in names.items():
        expected = theirs(f"sequential.batchnorm2.{name}")
        np.testing.assert_array_equal(norm[ours], expected)
    bias = theirs("sequential.batchnorm2.bias")
    np.testing.assert_array_equal(params["normalization_1"]["bias"], bias)
    assert params["head"]["kernel"][0, 0, 1, 1, 0] == theirs("conv.weight")[0, 1, 0, 1]
    np.testing.assert_array_equal(params["head"]["bias"], theirs("conv.bias"))

    assert len(report.placed) == 2 * (2 + 3 + 4) + 2
    placed = dict(report.placed)
    weight = f"{prefix}{CELLS[1]}.conv.weight"
    assert placed[weight] == "params/layer_1/input_kernel and recurrent_kernel"
    assert placed[f"{prefix}{CELLS[0]}.W_cf"] == "params/layer_0/peephole of f"
    assert dict(report.skipped) == {
        f"{prefix}sequential.batchnorm{number}.num_batches_tracked": (
            "as nothing depends on them"
        )
        for number in (1, 2)
    }


def test_the_scale_makes_up_for_the_other_epsilon(given):
    arrays = state_dict()
    arrays["sequential.batchnorm1.running_var"] = np.array([0, 1e-4, 2])
    given(arrays)
    model = predictor()
    variables, report = import_pytorch("w.pth", model, shapes(model))
    scale = variables["params"]["normalization_0"]["scale"]
    np.testing.assert_allclose(
        scale / arrays["sequential.batchnorm1.weight"],
        [10, 10**0.5, (2.001 / 2.00001) ** 0.5],
        rtol=1e-6,
    )
    assert scale.dtype == np.float32
    trust, epsilon = report.notes
    assert "gates in the order i, f, g, o, as in cells called convlstmN.conv" in trust
    assert "activation 'relu'" in trust
    assert "epsilon 1e-05 in batch normalisation" in trust
    assert "times sqrt((variance + 0.001) / (variance + 1e-05))" in epsilon


def test_cells_of_a_cell_list_have_their_gates_in_another_order(given):
    arrays = in_cell_list(state_dict(peepholes=False))
    given(arrays)
    model = predictor(peephole="none")
    variables, report = import_pytorch("w.pth", model, shapes(model))
    bias = np.split(np.float32(arrays["convlstm.cell_list.0.conv.bias"]), 4)
    np.testing.assert_array_equal(
        variables["params"]["layer_0"]["bias"],
        np.concatenate([bias[0], bias[1], bias[3], bias[2]]),
    )
    np.testing.assert_array_equal(
        variables["batch_stats"]["normalization_1"]["mean"],
        np.float32(arrays["norms.2.bn.running_mean"]),
    )
    placed = dict(report.placed)
    assert placed["to_frame.conv.weight"] == "params/head/kernel"
    assert "i, f, o, g, as in cells called cell_list.N" in report.notes[0]


def test_a_network_without_batch_normalisation_has_no_statistics(given):
    given({k: v for k, v in state_dict().items() if "batchnorm" not in k})
    model = predictor(num_normalized_layers=0)
    variables, report = import_pytorch("w.pth", model, shapes(model))
    assert set(variables) == {"params"}
    (trust,) = report.notes
    assert "epsilon" not in trust


def test_unknown_keys_are_listed(given):
    given({**state_dict(), "criterion.weight": np.zeros(3)})
    model = predictor()
    _, report = import_pytorch("w.pth", model, shapes(model))
    assert ("criterion.weight", "as the model has no such array") in report.skipped


def test_all_missing_and_misshapen_arrays_are_listed_as_in_the_file(given):
    arrays = state_dict()
    for key in ("conv.weight", f"{CELLS[1]}.W_co", "sequential.batchnorm2.weight"):
        del arrays[key]
    arrays[f"{CELLS[0]}.conv.weight"] = np.zeros((12, 5, 5, 5))
    arrays[f"{CELLS[0]}.W_ci"] = np.zeros((3, 7, 5))
    given(arrays)
    model = predictor()
    with pytest.raises(UserError) as caught:
        import_pytorch("w.pth", model, shapes(model))
    assert str(caught.value) == (
        "'w.pth' does not fit the model of the config: conv.weight is missing, "
        f"expected with shape (2, 2, 3, 3); {CELLS[0]}.conv.weight has shape "
        f"(12, 5, 5, 5), expected (12, 5, 3, 3); {CELLS[0]}.W_ci has shape (3, 7, 5), "
        f"expected (3, 5, 7); {CELLS[1]}.W_co is missing, expected with shape "
        "(2, 5, 7); sequential.batchnorm2.weight is missing, expected with shape (2,)"
    )


def test_layers_that_the_file_lacks_are_missing_by_the_names_of_its_kind(given):
    given(state_dict())
    model = predictor(features=(3, 2, 2), num_normalized_layers=3)
    with pytest.raises(UserError) as caught:
        import_pytorch("w.pth", model, shapes(model))
    assert "convlstm3.convLSTMcell.conv.weight is missing" in str(caught.value)
    assert "batchnorm3.running_var is missing" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"features": (3,), "num_normalized_layers": 1},
            f"it has the cells {CELLS[0]}, {CELLS[1]}, where model.features has place "
            "for those of the lowest 1 layers; it has the norms sequential.batchnorm1, "
            "sequential.batchnorm2, where model.num_normalized_layers has place for "
            "those of the lowest 1 layers",
        ),
        (
            {"peephole": "none", "head_frames": 3},
            "model.peephole is 'none', where it must be 'location', as its cells have "
            "W_ci, W_cf and W_co; model.head_frames is 3, where it must be 1, as its "
            "head reads only the current frame",
        ),
        ({"peephole": "channel"}, "'channel', where it must be 'location'"),
    ],
)
def test_models_that_compute_something_else_are_refused(fields, message, given):
    given(state_dict())
    model = predictor(**fields)
    with pytest.raises(UserError, match="cannot be imported: ") as caught:
        import_pytorch("w.pth", model, shapes(model))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            state_dict(peepholes=False),
            "model.peephole is 'location', where it must be 'none', as its cells have "
            "none",
        ),
        (
            {**state_dict(), "encoder.weight": np.zeros((2, 2, 3, 3))},
            "it has the convolutions conv, encoder beside those of its cells, where "
            "one, the head, is possible",
        ),
        (
            {**state_dict(), "sequential.batchnorm2.running_var": np.array([1, -1])},
            "sequential.batchnorm2.running_var has values below 0",
        ),
        (
            # All in the file's order, as one is called otherwise.
            {**state_dict(), "last.running_mean": np.zeros(2)},
            "has the norms sequential.batchnorm1, sequential.batchnorm2, last, where",
        ),
        (
            {**state_dict(), **state_dict("decoder.")},
            f"'w.pth' has both {CELLS[0]}.conv and decoder.{CELLS[0]}.conv: it must "
            "have one stack of ConvLSTM layers",
        ),
        (
            {"conv.weight": np.zeros((2, 2, 3, 3)), "fc.weight": np.zeros((2, 2))},
            "'w.pth' has no ConvLSTM cells of a known name: it must have "
            "convlstm1.convLSTMcell.conv.weight or cell_list.0.conv.weight among its "
            "keys, which are conv.weight, fc.weight",
        ),
    ],
)
def test_other_files_get_one_sentence(arrays, message, given):
    given(arrays)
    model = predictor()
    with pytest.raises(UserError) as caught:
        import_pytorch("w.pth", model, shapes(model))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gap_in_the_batch_normalisations_is_not_closed(given):
    """Those of the layers 2 and 3 are none of the lowest two."""
    arrays = state_dict()
    for name in ("weight", "bias", "running_mean", "running_var"):
        moved = arrays.pop(f"sequential.batchnorm1.{name}")
        arrays[f"sequential.batchnorm3.{name}"] = moved
    given(arrays)
    with pytest.raises(UserError, match=r"has the norms .*batchnorm2, sequen"):
        import_pytorch("w.pth", predictor(), shapes(predictor()))


@pytest.mark.parametrize(("activation", "num_normalized"), [("relu", 2), ("tanh", 1)])
def test_an_imported_model_predicts_what_pytorch_does(
    torch, activation, num_normalized, tmp_path
):
    """The next frame, and those after it from its own predictions."""
    theirs = pytorch_tutorial.build(
        torch,
        CHANNELS,
        FEATURES,
        (HEIGHT, WIDTH),
        activation=activation,
        num_normalized=num_normalized,
    )
    torch.save({"epoch": 3, "state_dict": theirs.state_dict()}, tmp_path / "w.pth")
    model = predictor(activation=activation, num_normalized_layers=num_normalized)
    variables, report = import_pytorch(tmp_path / "w.pth", model, shapes(model))
    assert len(report.placed) == len(theirs.state_dict()) - num_normalized

    clip = np.random.default_rng(1).uniform(size=(2, 4, *FRAME_SHAPE))
    clip = clip.astype(np.float32)
    expected = pytorch_tutorial.predict(torch, theirs, clip.transpose(0, 1, 4, 2, 3), 4)
    logits = jax.jit(model.apply)(variables, clip)
    found = np.asarray(jax.nn.sigmoid(logits[:, -1]))
    assert expected.std() > 0.03
    np.testing.assert_allclose(found, expected[:, 0], rtol=0, atol=1e-5)
    forecast = jax.jit(model.forecast, static_argnums=2)(variables, clip, 4)
    np.testing.assert_allclose(forecast.frames, expected, rtol=0, atol=1e-5)
    if num_normalized == 2:
        # The epsilon is no small matter here.
        variables["params"]["normalization_1"]["scale"] = (
            theirs.sequential.batchnorm2.weight.detach().numpy()
        )
        logits = jax.jit(model.apply)(variables, clip)
        off = np.abs(jax.nn.sigmoid(logits[:, -1]) - expected[:, 0])
        assert off.max() > 1e-3
