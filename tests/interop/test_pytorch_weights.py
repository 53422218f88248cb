import functools

import jax
import numpy as np
import pytest

from convlstm_jax.errors import UserError
from convlstm_jax.interop import pytorch_weights
from convlstm_jax.interop.pytorch_weights import convlstm_layers, import_pytorch
from convlstm_jax.layers.recurrent import RecurrentLayer
from convlstm_jax.models.next_frame import NextFramePredictor
from tests.interop import pytorch_networks

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


@functools.cache
def shapes(model):
    inputs = jax.ShapeDtypeStruct((1, 2, *FRAME_SHAPE), np.float32)
    return dict(jax.eval_shape(model.init, jax.random.key(0), inputs))


def state_dict(prefix="", peepholes=True):
    """Random arrays under the tutorial's keys, in NumPy alone."""
    draw = np.random.default_rng(0).normal
    arrays = {}
    below = CHANNELS
    for cell, features in zip(CELLS, FEATURES, strict=True):
        for gate in "iof" if peepholes else "":
            arrays[f"{cell}.W_c{gate}"] = draw(size=(features, HEIGHT, WIDTH))
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
            key = key.replace(CELLS[number - 1], f"convlstm.cell_list.{number - 1}")
            key = key.replace(f"sequential.batchnorm{number}", f"norms.{number}.bn")
        renamed[f"to_frame.{key}" if key.startswith("conv.") else key] = array
    return renamed


@pytest.fixture
def read(monkeypatch):
    """Imports a state dict without PyTorch."""

    def import_(arrays, **fields):
        monkeypatch.setattr(pytorch_weights, "read_state_dict", lambda path: arrays)
        model = predictor(**fields)
        return import_pytorch("w.pth", model, shapes(model))

    return import_


@pytest.mark.parametrize("prefix", ["", "model."])
def test_every_array_goes_to_its_place(prefix, read):
    arrays = state_dict(prefix) | {"criterion.weight": np.zeros(3)}
    variables, report = read(arrays)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(
        lambda leaf: leaf.shape, shapes(predictor())
    )
    params = variables["params"]

    def theirs(name):
        return np.float32(arrays[f"{prefix}{name}"])

    layer = params["layer_1"]
    kernel = theirs(f"{CELLS[1]}.conv.weight")
    assert layer["input_kernel"][0, 2, 1, 5] == kernel[5, 1, 0, 2]
    assert layer["recurrent_kernel"][0, 2, 1, 5] == kernel[5, 3 + 1, 0, 2]
    for index, gate in enumerate("ifo"):
        peephole = theirs(f"{CELLS[1]}.W_c{gate}").transpose(1, 2, 0)
        np.testing.assert_array_equal(layer["peephole"][index], peephole)
    assert params["head"]["kernel"][0, 0, 1, 1, 0] == theirs("conv.weight")[0, 1, 0, 1]
    for name in ("mean", "var"):
        np.testing.assert_array_equal(
            variables["batch_stats"]["normalization_1"][name],
            theirs(f"sequential.batchnorm2.running_{name}"),
        )
    assert len(report.placed) == 2 * (2 + 3 + 4) + 2
    placed = (f"{prefix}{CELLS[0]}.W_cf", "params/layer_0/peephole of f")
    assert placed in report.placed
    batches = f"{prefix}sequential.batchnorm{{}}.num_batches_tracked"
    assert [name for name, _ in report.skipped] == [
        batches.format(1), batches.format(2), "criterion.weight",
    ]  # fmt: skip


def test_the_scale_makes_up_for_the_other_epsilon(read):
    arrays = state_dict()
    arrays["sequential.batchnorm1.running_var"] = np.array([0, 1e-4, 2])
    variables, report = read(arrays)
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
    assert "other epsilon, 0.001: predictions stay the same" in epsilon


def test_cells_of_a_cell_list_have_their_gates_in_another_order(read):
    arrays = in_cell_list(state_dict(peepholes=False))
    variables, report = read(arrays, peephole="none")
    bias = np.split(np.float32(arrays["convlstm.cell_list.0.conv.bias"]), 4)
    np.testing.assert_array_equal(
        variables["params"]["layer_0"]["bias"],
        np.concatenate([bias[0], bias[1], bias[3], bias[2]]),
    )
    np.testing.assert_array_equal(
        variables["batch_stats"]["normalization_1"]["mean"],
        np.float32(arrays["norms.2.bn.running_mean"]),
    )
    assert dict(report.placed)["to_frame.conv.weight"] == "params/head/kernel"
    assert "i, f, o, g, as in cells called cell_list.N" in report.notes[0]


def test_a_network_without_batch_normalisation_has_no_statistics(read):
    arrays = {k: v for k, v in state_dict().items() if "batchnorm" not in k}
    variables, report = read(arrays, num_normalized_layers=0)
    assert set(variables) == {"params"}
    (trust,) = report.notes
    assert "epsilon" not in trust


def without(*keys):
    return {k: v for k, v in state_dict().items() if k not in keys}


@pytest.mark.parametrize(
    ("arrays", "fields", "message"),
    [
        (
            without("conv.weight", f"{CELLS[1]}.W_co", "sequential.batchnorm2.weight")
            | {f"{CELLS[0]}.conv.weight": np.zeros((12, 5, 5, 5))},
            {},
            "does not fit the model of the config: "
            f"{CELLS[0]}.conv.weight has shape (12, 5, 5, 5), expected (12, 5, 3, 3); "
            f"{CELLS[1]}.W_co is missing, expected with shape (2, 5, 7); "
            "sequential.batchnorm2.weight is missing, expected with shape (2,); "
            "conv.weight is missing, expected with shape (2, 2, 3, 3)",
        ),
        (
            state_dict(),
            {"features": (3,), "num_normalized_layers": 1},
            f"cannot be imported: it has the cells {CELLS[0]}, {CELLS[1]}, where "
            "model.features has place for those of the lowest 1 layers; it has the "
            "norms sequential.batchnorm1, sequential.batchnorm2, where "
            "model.num_normalized_layers has place for those of the lowest 1 layers",
        ),
        (
            state_dict(),
            {"peephole": "none", "head_frames": 3},
            "model.peephole is 'none', where it must be 'location', as its cells have "
            "W_ci, W_cf and W_co; model.head_frames is 3, where it must be 1, as its "
            "head reads only the current frame",
        ),
        (
            state_dict(peepholes=False),
            {},
            "model.peephole is 'location', where it must be 'none', as its cells have "
            "none",
        ),
        (
            {**state_dict(), "encoder.weight": np.zeros((2, 2, 3, 3))},
            {},
            "it has the convolutions conv, encoder beside those of its cells, where "
            "one, the head, is possible",
        ),
        (
            {
                **state_dict(),
                "sequential.batchnorm1.weight": np.array([1j, 0, 0]),
                "sequential.batchnorm2.running_var": np.array([1, -1]),
                "conv.bias": np.array([1, np.nan]),
            },
            {},
            "sequential.batchnorm1.weight has values of type complex128; "
            "sequential.batchnorm2.running_var has values below 0; "
            "conv.bias has values that are not finite",
        ),
        (
            # A gap is not closed: those of the layers 2 and 3 are not the lowest two.
            without("sequential.batchnorm1.running_mean")
            | {"sequential.batchnorm3.running_mean": np.zeros(3)},
            {},
            "has the norms sequential.batchnorm2, sequential.batchnorm3, where",
        ),
        (
            {**state_dict(), **state_dict("decoder.")},
            {},
            f"'w.pth' has both {CELLS[0]}.conv and decoder.{CELLS[0]}.conv: it must "
            "have one stack of ConvLSTM layers",
        ),
        (
            {"conv.weight": np.zeros((2, 2, 3, 3)), "fc.weight": np.zeros((2, 2))},
            {},
            "'w.pth' has no ConvLSTM cells of a known name: it must have "
            "convlstm1.convLSTMcell.conv.weight or cell_list.0.conv.weight among its "
            "keys, which are conv.weight, fc.weight",
        ),
    ],
)
def test_what_does_not_fit_gets_one_sentence(arrays, fields, message, read):
    with pytest.raises(UserError, match=r"^'w\.pth' ") as caught:
        read(arrays, **fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("activation", "num_normalized"), [("relu", 2), ("tanh", 1)])
def test_an_imported_model_predicts_what_pytorch_does(
    torch, activation, num_normalized, tmp_path
):
    """The next frame, and those after it from its own predictions."""
    theirs = pytorch_networks.tutorial(
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
    expected = pytorch_networks.predict(torch, theirs, clip.transpose(0, 1, 4, 2, 3), 4)
    assert expected.std() > 0.03
    found = jax.jit(model.forecast, static_argnums=2)(variables, clip, 4).frames
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("gate_order", "bias", "frame_size"),
    [
        ("ifog", True, None),
        ("ifgo", False, None),
        ("ifog", True, (5, 7)),
        ("ifog", True, (1, 1)),
    ],
)
def test_outputs_and_gradients_of_a_stack_equal_pytorchs(
    torch, gate_order, bias, frame_size
):
    theirs = pytorch_networks.stack(torch, 3, (4, 2), gate_order, bias, frame_size)
    arrays = {}
    for key, value in theirs.state_dict().items():
        # Numbered from 1 on, and peepholes as others write them.
        _, number, rest = key.split(".", maxsplit=2)
        if rest.startswith("W_c"):
            rest, value = rest.replace("_", ""), value[None]
        arrays[f"net.cell{int(number) + 1}.{rest.replace('conv', 'gates')}"] = value
    layers = convlstm_layers(arrays, gate_order=gate_order, convolution="cell{}.gates")
    cells, variables = zip(*layers, strict=True)
    generator = np.random.default_rng(2)
    clip = generator.normal(size=(2, 4, 5, 7, 3)).astype(np.float32)
    direction = generator.normal(size=(2, 4, 5, 7, 2)).astype(np.float32)

    frames = torch.from_numpy(clip.transpose(0, 1, 4, 2, 3)).requires_grad_()
    expected = theirs(frames).permute(0, 1, 3, 4, 2)
    (expected * torch.from_numpy(direction)).sum().backward()

    def loss(variables, outputs):
        for cell, layer in zip(cells, variables, strict=True):
            _, outputs = RecurrentLayer(cell).apply(layer, outputs)
        return (outputs * direction).sum(), outputs

    value = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (_, found), (layer_gradients, clip_gradient) = jax.jit(value)(variables, clip)
    np.testing.assert_allclose(found, expected.detach(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        clip_gradient, frames.grad.permute(0, 1, 3, 4, 2), rtol=1e-5, atol=1e-5
    )
    # Their gradients, read the way their weights are.
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    layers = convlstm_layers(gradients, gate_order=gate_order)
    for found, (_, expected) in zip(layer_gradients, layers, strict=True):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=3e-5),
            found,
            expected,
        )


@pytest.mark.parametrize(
    ("shape", "fields", "message"),
    [
        ((16, 7, 3, 3), {"gate_order": "ifo"}, "gate_order is 'ifo': it must be a per"),
        (
            (16, 7, 3, 3),
            {"convolution": "l.{}.c"},
            r"l\.\{\}\.c\.weight, .* has none am",
        ),
        ((15, 7, 3, 3), {}, r"expected \(12, 7, 3, 3\)"),
        ((16, 4, 3, 3), {}, r"expected \(16, 5, 3, 3\)"),
        ((16, 7, 4, 4), {}, "size is 4: it must be odd"),
        (
            (16, 7, 3, 3),
            {"beside": {"cell_list.0.norm.weight": np.ones(4)}},
            r"has cell_list\.0\.norm\.weight beside cell_list\.0\.conv: a cell may",
        ),
        (
            (16, 7, 3, 3),
            {"beside": {"cell_list.0.W_cf": np.ones((4, 5, 5))}},
            r"cell_list\.0\.W_ci is missing, expected with shape \(4, 5, 5\)",
        ),
        (
            (16, 7, 3, 3),
            {"beside": {"cell_list.2.conv.weight": np.ones((16, 8, 3, 3))}},
            r"numbered without a gap: it has \['cell_list.0.conv', 'cell_list.2.conv",
        ),
    ],
)
def test_cells_that_cannot_be_taken_get_one_sentence(shape, fields, message):
    arrays = {"cell_list.0.conv.weight": np.zeros(shape)} | fields.pop("beside", {})
    with pytest.raises(ValueError, match=message) as caught:
        convlstm_layers(arrays, **fields)
    assert "\n" not in str(caught.value)
