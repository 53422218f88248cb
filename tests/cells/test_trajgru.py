"""Shi et al. 2017 in plain NumPy → the cell → the layer → PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.workloads import Workload
from convlstm_jax.cells import build_cell
from convlstm_jax.cells.trajgru import TrajGRUCell
from tests.cells.layers import run_every_way
from tests.ops.oracle import convolve, sigmoid, warp
from tests.trees import assert_trees_close, fast_jit

SHAPE, FEATURES, LINKS = (2, 3, 3, 4, 2), 3, 2
DOUBLE = {"dtype": jnp.float64, "param_dtype": jnp.float64}
CELL = TrajGRUCell(FEATURES, 3, 5, num_links=LINKS, **DOUBLE)


def leaky(x):
    return np.where(x > 0, x, 0.2 * x)


def oracle(weights, inputs, hidden):
    """Clip by clip, frame by frame and link by link; inputs may be `None`."""
    kernels = np.split(weights["gates_kernel"], LINKS, axis=2)
    outputs = []
    for clip, h in enumerate(hidden):
        for t in range(SHAPE[1]):
            flow = convolve(h, weights["flow_kernel"]) + weights["flow_bias"]
            from_frame = weights["bias"] + np.zeros((*h.shape[:2], 1))
            if inputs is not None:
                frame = inputs[clip, t]
                flow += convolve(frame, weights["flow_input_kernel"])
                from_frame += convolve(frame, weights["gates_input_kernel"])
            flow = convolve(leaky(flow), weights["flow_output_kernel"])
            flow += weights["flow_output_bias"]
            from_state = np.zeros_like(from_frame)
            for link, kernel in enumerate(kernels):
                warped = warp(h, -flow[..., 2 * link : 2 * link + 2])
                from_state += convolve(warped, kernel)
            x_z, x_r, x_n = np.split(from_frame, 3, axis=-1)
            h_z, h_r, h_n = np.split(from_state, 3, axis=-1)
            z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
            n = leaky(x_n + r * (h_n + weights["recurrent_bias"]))
            h = z * h + (1 - z) * n
            outputs.append(h)
    outputs = np.reshape(outputs, (*SHAPE[:4], FEATURES))
    return outputs[:, -1], outputs


@pytest.mark.parametrize("with_inputs", [True, False])
def test_every_way_to_run_equals_the_oracle(with_inputs):
    generator = np.random.default_rng(2)
    inputs = generator.normal(size=SHAPE) if with_inputs else None
    hidden = generator.normal(size=(SHAPE[0], *SHAPE[2:4], FEATURES))
    weights, (fused, scanned) = run_every_way(CELL, inputs, hidden, SHAPE[1], generator)
    assert_trees_close(fused, scanned)
    assert_trees_close(fused[0], oracle(weights, inputs, hidden))


@pytest.mark.parametrize("name", ["convgru", "trajgru"])
def test_the_benchmarks_layer_in_pytorch(name):
    """Outputs and the gradient of every parameter and of the inputs."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from benchmarks.contenders.pytorch import make_network
    from benchmarks.contenders.pytorch_weights import by_our_paths, load_weights

    generator = np.random.default_rng(3)
    inputs = generator.normal(size=SHAPE)
    hidden = np.zeros((SHAPE[0], *SHAPE[2:4], FEATURES))
    fields = {"reset_after": True, "activation": "leaky_relu", "num_links": LINKS}
    cell = build_cell(name, features=FEATURES, **fields, **DOUBLE)
    drawn, (fused, _) = run_every_way(cell, inputs, hidden, SHAPE[1], generator)
    (_, outputs), (by_weights, by_inputs, _) = fused
    links = LINKS if name == "trajgru" else 0
    workload = Workload("", name, *SHAPE[:2], SHAPE[2:], (FEATURES,), 3, 0, 1, links)
    layer = make_network(workload).double()
    weights = {f"cell/{key}": value for key, value in drawn.items()}
    load_weights(layer, weights)
    frames = torch.tensor(inputs.transpose(0, 1, 4, 2, 3), requires_grad=True)
    theirs = layer(frames)
    np.testing.assert_allclose(outputs, theirs.detach(), rtol=1e-9, atol=1e-9)
    # The cotangents of outputs, and of the carry after the last step.
    (theirs.detach().cos() * theirs).sum().backward(retain_graph=True)
    (theirs[:, -1].detach().cos() * theirs[:, -1]).sum().backward()
    gradients = {key: p.grad.numpy() for key, p in layer.named_parameters()}
    found = {f"cell/{k}": v for k, v in by_weights["params"]["cell"].items()}
    assert_trees_close(found, by_our_paths(gradients, weights))
    by_frames = frames.grad.numpy().transpose(0, 1, 3, 4, 2)
    np.testing.assert_allclose(by_inputs, by_frames, rtol=1e-9, atol=1e-9)


def test_flows_start_at_zero_and_are_kept_in_float32():
    cell = TrajGRUCell(3, num_links=2)
    carry, frame = jnp.ones((1, 4, 5, 3)), jnp.ones((1, 4, 5, 2))
    with jax.numpy_dtype_promotion("strict"):
        init = fast_jit(cell.init_with_output)
        (new, _), variables = init(jax.random.key(0), carry, frame)
    assert new.dtype == jnp.float32
    variables = variables["params"]
    assert not variables["flow_output_kernel"].any()
    assert variables["flow_kernel"].any()
    half = TrajGRUCell(3, num_links=2, dtype=jnp.bfloat16)
    assert half.initialize_carry(None, frame.shape).dtype == jnp.float32


@pytest.mark.parametrize("links", [0, 2.0, True])
@pytest.mark.usefixtures("unchecked_types")
def test_a_wrong_number_of_links_is_refused(links):
    with pytest.raises(ValueError, match=f"num_links is {links!r}: it must be an int"):
        TrajGRUCell(3, num_links=links)
