import functools

import jax
import numpy as np
import pytest

from convlstm_jax.errors import UserError
from convlstm_jax.interop import openstl_weights
from convlstm_jax.interop.openstl_weights import import_openstl
from convlstm_jax.models.recurrent_predictor import RecurrentPredictor
from tests.interop import openstl_network

FEATURES = (3, 2)
FRAME_SHAPE = (4, 6, 2)
PATCH = 2
DEPTH = PATCH * PATCH * FRAME_SHAPE[2]
PATCHED_SIZE = (2, 3)


def predictor(**fields):
    fields = {"forget_offset": 0.0, "features": FEATURES, **fields}
    return RecurrentPredictor(
        input_kernel_size=3, recurrent_kernel_size=3, patch_size=PATCH, **fields
    )


@functools.cache
def shapes(model):
    frames = np.zeros((1, 1, *FRAME_SHAPE), np.float32)
    mask = np.ones((1, 1), bool)
    return dict(jax.eval_shape(model.init, jax.random.key(0), frames, mask))


def state_dict(torch, layer_norm=False, prefix=""):
    theirs = openstl_network.build(
        torch, FEATURES, 3, DEPTH, PATCHED_SIZE, layer_norm=layer_norm
    )
    return {f"{prefix}{k}": v.numpy() for k, v in theirs.state_dict().items()}


@pytest.fixture
def read(monkeypatch):

    def import_(arrays, **fields):
        monkeypatch.setattr(openstl_weights, "read_state_dict", lambda path: arrays)
        model = predictor(**fields)
        return import_openstl("w.pth", model, shapes(model))

    return import_


@pytest.mark.parametrize("prefix", ["", "model.module."])
def test_every_array_goes_to_its_place(torch, prefix, read):
    arrays = state_dict(torch, prefix=prefix) | {"criterion.weight": np.zeros(3)}
    variables, report = read(arrays)
    params = variables["params"]
    theirs = arrays[f"{prefix}cell_list.1.conv_h.0.weight"]
    ours = params["layer_1"]["recurrent_kernel"]
    assert ours[0, 2, 1, 5] == np.float32(theirs[5, 1, 0, 2])
    last = arrays[f"{prefix}conv_last.weight"]
    assert params["output_kernel"][0, 0, 1, 3] == np.float32(last[3, 1, 0, 0])
    assert len(report.placed) == 5
    assert dict(report.skipped) == {
        f"{prefix}cell_list.{index}.{name}.weight": "as OpenSTL's cells never use it"
        for index in range(2)
        for name in ("conv_o.0", "conv_last")
    } | {"criterion.weight": "as the model has no such array"}


def test_all_missing_and_misshapen_arrays_are_listed_as_in_the_file(torch, read):
    arrays = state_dict(torch)
    del arrays["conv_last.weight"]
    arrays["cell_list.0.conv_x.0.weight"] = np.zeros((12, 8, 5, 5))
    with pytest.raises(UserError) as caught:
        read(arrays)
    assert str(caught.value) == (
        "'w.pth' does not fit the model of the config: cell_list.0.conv_x.0.weight has "
        "shape (12, 8, 5, 5), expected (12, 8, 3, 3); conv_last.weight is missing, "
        "expected with shape (8, 2, 1, 1)"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {},
            r"^'w\.pth' has layer norms \(cell_list\.0\.conv_x\.1\.weight, \.\.\.\): "
            "model.layer_norm is False, where it must be True",
        ),
        ({"features": (3,)}, "has 2 cells: the model .* has 1 layers in model.feat"),
        ({"forget_offset": 1.0}, r"^model\.forget_offset is 1: it must be 0 with"),
    ],
)
def test_models_that_compute_something_else_are_refused(torch, fields, message, read):
    with pytest.raises(UserError, match=message):
        read(state_dict(torch, layer_norm=True), **fields)


@pytest.mark.parametrize(("layer_norm", "wrapped"), [(False, True), (True, False)])
def test_an_imported_model_forecasts_what_pytorch_does(
    torch, layer_norm, wrapped, tmp_path
):
    """Frames given, then its own predictions; patches of two channels, H ≠ W."""
    theirs = openstl_network.build(
        torch, FEATURES, 3, DEPTH, PATCHED_SIZE, layer_norm=layer_norm
    )
    content = theirs.state_dict()
    if wrapped:
        content = {"epoch": 3, "state_dict": {f"module.{k}": v
                                              for k, v in content.items()}}  # fmt: skip
    torch.save(content, tmp_path / "checkpoint.pth")
    model = predictor(layer_norm=layer_norm)
    variables, _ = import_openstl(tmp_path / "checkpoint.pth", model, shapes(model))

    clip = np.random.default_rng(1).uniform(size=(2, 3, *FRAME_SHAPE))
    clip = clip.astype(np.float32)
    patches = openstl_network.to_patches(clip, PATCH)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(patches), 6).numpy()
    mask = np.arange(6)[None].repeat(2, 0) < 3
    found = np.asarray(jax.jit(model.apply)(variables, clip, mask))
    assert expected.std() > 0.05
    np.testing.assert_allclose(
        openstl_network.to_patches(found, PATCH), expected, rtol=0, atol=1e-5
    )
