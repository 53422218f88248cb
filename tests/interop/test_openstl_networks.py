"""PredRNN, PredRNN++, PredRNN-V2 and MIM with OpenSTL's weights and its outputs."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from convlstm_jax.errors import UserError
from convlstm_jax.interop.openstl_weights import import_openstl
from convlstm_jax.models.recurrent_predictor import RecurrentPredictor

OUTPUTS = Path(__file__).resolve().parents[3] / "shared/data/openstl_outputs"
needs_outputs = pytest.mark.skipif(
    not OUTPUTS.is_dir(), reason="the outputs of OpenSTL's networks are not here"
)
FEATURES, FRAME_SHAPE, PATCH = (3, 3, 3), (4, 6, 2), 2

# The largest share of the norm by which outputs may differ. Without layer norm, float32
# itself costs PredRNN++ 6e-5 after seven steps with these weights, and others 3e-6.
TOLERANCES = {
    "convlstm_layernorm0": 1e-5,
    "convlstm_layernorm1": 1e-4,
    "predrnn_layernorm0": 1e-5,
    "predrnn_layernorm1": 1e-4,
    "predrnnpp_layernorm0": 1e-4,
    "predrnnv2_layernorm0": 1e-5,
    "predrnnv2_layernorm1": 1e-4,
    "mim_layernorm0": 1e-5,
    "mim_layernorm1": 1e-4,
}


def predictor(cell, **fields):
    fields = {"features": FEATURES, "patch_size": PATCH, **fields}
    sizes = {"input_kernel_size": 3, "recurrent_kernel_size": 3}
    offset = float(cell != "convlstm")
    return RecurrentPredictor(cell=cell, forget_offset=offset, **sizes, **fields)


def imported(path, model, frame_shape=FRAME_SHAPE):
    frames = np.zeros((1, 1, *frame_shape), np.float32)
    mask = np.ones((1, 1), bool)
    shapes = dict(jax.eval_shape(model.init, jax.random.key(0), frames, mask))
    return import_openstl(path, model, shapes)


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@needs_outputs
@pytest.mark.parametrize("name", TOLERANCES)
def test_outputs_are_those_of_openstl(name, torch, tmp_path):
    """Frames given, then its own predictions; the training loss of PredRNN-V2."""
    file = np.load(OUTPUTS / f"{name}.npz")
    config = json.loads(str(file["config"]))
    cell = config["model"].removesuffix("v2")
    beta = float(file["decouple_beta"]) if "decouple_beta" in file else 0.0
    model = predictor(
        cell,
        features=tuple(config["num_hidden"]),
        patch_size=config["patch_size"],
        layer_norm=bool(config["layer_norm"]),
        decoupling_weight=beta,
    )
    weights = {k[2:]: torch.from_numpy(file[k]) for k in file if k.startswith("w:")}
    torch.save(weights, tmp_path / "w.pth")
    frames, expected = file["frames"], file["next_frames"]
    variables, report = imported(tmp_path / "w.pth", model, frames.shape[2:])
    num_placed = sum(leaf.size for leaf in jax.tree.leaves(variables))
    num_skipped = sum(weights[key].numel() for key, _ in report.skipped)
    assert num_placed + num_skipped == config["parameters"]
    reasons = {reason for _, reason in report.skipped}
    assert reasons <= {"as OpenSTL's cells never use it"}

    steps = np.arange(expected.shape[1])
    mask = np.broadcast_to(steps < config["input_frames"], expected.shape[:2])
    unroll = functools.partial(model.apply, with_decoupling=bool(beta), method="unroll")
    _, found, decoupling = jax.jit(unroll)(variables, frames, mask)
    assert relative(found, expected) < TOLERANCES[name]
    if beta:
        loss = np.square(found - frames[:, 1:]).mean() + beta * decoupling.mean()
        assert loss == pytest.approx(file["loss"], rel=1e-5)


def network(torch, cell, layer_norm):
    """A network of the benchmark's port with random weights, and its state dict."""
    from benchmarks.contenders.pytorch_openstl import openstl_network

    size = tuple(length // PATCH for length in FRAME_SHAPE[:2])
    depth = PATCH * PATCH * FRAME_SHAPE[2]
    theirs = openstl_network(
        cell, depth, FEATURES, 3, PATCH, size=size, layer_norm=layer_norm
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return theirs


@pytest.mark.parametrize("cell", ["predrnn", "predrnnpp", "mim"])
def test_an_imported_network_forecasts_what_pytorch_does(cell, torch, tmp_path):
    """With layer norms, which PredRNN++ cannot have in OpenSTL; H ≠ W."""
    theirs = network(torch, cell, layer_norm=True)
    unused = {"predrnnpp": "cell_list.0.conv_o.0.weight",
              "mim": "stlstm_layer_diff.1.conv_last.weight"}.get(cell)  # fmt: skip
    state = {f"_orig_mod.model.{k}": v for k, v in theirs.state_dict().items()}
    if unused:
        state[f"_orig_mod.model.{unused}"] = torch.zeros(2)
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    model = predictor(cell, layer_norm=True)
    variables, report = imported(tmp_path / "w.pth", model)
    skipped = {f"model.{unused}": "as OpenSTL's cells never use it"}
    assert dict(report.skipped) == (skipped if unused else {})

    clip = np.random.default_rng(1).uniform(size=(2, 5, *FRAME_SHAPE))
    clip = clip.astype(np.float32)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 1, 0]], bool)
    # The port's patches have the channel before the place in the patch.
    frames = torch.from_numpy(clip).permute(0, 1, 4, 2, 3)
    with torch.no_grad():
        expected = run_port(torch, theirs, frames, torch.from_numpy(mask).float())
    found = np.asarray(jax.jit(model.apply)(variables, clip, mask))
    assert expected.std() > 0.05
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def run_port(torch, theirs, frames, mask):
    """The port on patches in OpenSTL's order of channels: row, column, channel."""
    order = np.arange(PATCH * PATCH * FRAME_SHAPE[2])
    order = order.reshape(FRAME_SHAPE[2], -1).T.ravel()
    functional = torch.nn.functional
    unshuffle, shuffle = functional.pixel_unshuffle, functional.pixel_shuffle
    inverse = np.argsort(order)
    try:
        functional.pixel_unshuffle = lambda x, size: unshuffle(x, size)[:, order]
        functional.pixel_shuffle = lambda x, size: shuffle(x[:, inverse], size)
        return theirs(frames, mask).numpy()
    finally:
        functional.pixel_unshuffle, functional.pixel_shuffle = unshuffle, shuffle


@pytest.mark.parametrize(
    ("cell", "fields", "message"),
    [
        ("mim", {}, "w.pth' has the cells of PredRNN: model.cell is 'mim', where it "),
        ("predrnn", {"forget_offset": 0.0}, "offset is 0: it must be 1 with the weig"),
        ("predrnn", {}, r"has layer norms \(cell_list.0.conv_x.1.weight, ...\): model"),
    ],
)
def test_networks_that_compute_something_else_are_refused(
    cell, fields, message, torch, tmp_path
):
    theirs = network(torch, "predrnn", layer_norm=True)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    model = predictor(cell).clone(**fields)
    with pytest.raises(UserError, match=message):
        imported(tmp_path / "w.pth", model)


def test_the_adapter_is_left_out_where_it_is_not_needed(torch, tmp_path):
    state = network(torch, "predrnn", layer_norm=False).state_dict()
    state["adapter.weight"] = torch.ones(3, 3, 1, 1)
    torch.save(state, tmp_path / "w.pth")
    _, report = imported(tmp_path / "w.pth", predictor("predrnn"))
    ((name, reason),) = report.skipped
    assert name == "adapter.weight"
    assert reason == "as it serves the decoupling loss alone, whose weight is 0"
    model = predictor("predrnn", decoupling_weight=0.5)
    variables, report = imported(tmp_path / "w.pth", model)
    assert not report.skipped
    assert (variables["params"]["adapter_kernel"] == 1).all()
