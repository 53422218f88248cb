"""The formula in plain NumPy → `warp`, on a CPU and as elsewhere → PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from convlstm_jax.ops.warping import warp
from tests.ops import oracle
from tests.trees import fast_jit

HEIGHT, WIDTH = 4, 6


def draw(channels, links=(), seed=0, scale=2.5):
    """Frames and flows of which about a quarter lead out of the frame."""
    generator = np.random.default_rng(seed)
    frames = generator.normal(size=(2, HEIGHT, WIDTH, channels))
    flow = scale * generator.normal(size=(2, HEIGHT, WIDTH, *links, 2))
    return frames, flow


def gradients_of(frames, flow, cotangent=None):
    """The result, and its gradients given that of the result, of ones by default."""

    @fast_jit
    def both(frames, flow, cotangent):
        found, pull_back = jax.vjp(warp, frames, flow)
        gradient = jnp.ones_like(found) if cotangent is None else cotangent
        return found, *pull_back(gradient)

    return jax.device_get(both(frames, flow, cotangent))


@pytest.fixture(params=["cpu", "elsewhere"])
def platform(request, monkeypatch):
    if request.param == "elsewhere":
        monkeypatch.setattr(
            lax, "platform_dependent", lambda *args, cpu, default: default(*args)
        )


def formula(frames, flow):
    found = np.zeros((*flow.shape[:-1], frames.shape[-1]))
    for clip, frame in enumerate(frames):
        for link in np.ndindex(*flow.shape[3:-1]):
            at = (clip, ..., *link, slice(None))
            found[at] = oracle.warp(frame, flow[at])
    return found


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize(("channels", "links"), [(1, ()), (3, (2,)), (32, (3,))])
def test_the_formula_and_its_gradients(channels, links):
    arguments = draw(channels, links)
    directions = draw(channels, links, seed=1, scale=1)
    cotangent = np.random.default_rng(2).normal(
        size=(*arguments[1].shape[:-1], channels)
    )
    with jax.enable_x64(True):
        found, *gradients = gradients_of(*arguments, cotangent)
    np.testing.assert_allclose(found, formula(*arguments), rtol=1e-12, atol=1e-12)
    for index, (gradient, direction) in enumerate(
        zip(gradients, directions, strict=True)
    ):
        # No position is so near a whole number that a step of 1e-6 passes over it.
        steps = [list(arguments), list(arguments)]
        for sign, moved in zip((-1, 1), steps, strict=True):
            moved[index] = moved[index] + sign * 1e-6 * direction
        before, after = (formula(*moved) for moved in steps)
        slope = ((after - before) * cotangent).sum() / 2e-6
        assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-6)


@pytest.mark.usefixtures("platform")
def test_whole_pixels():
    """They are only moved; the derivative is that from the right and from below."""
    frames, _ = draw(2)
    frames = frames.astype(np.float32)
    flow = np.zeros((2, HEIGHT, WIDTH, 2), np.float32)
    flow[...] = 2, -1  # Reads two to the right, one above.
    moved, by_frames, by_flow = gradients_of(frames, flow)
    np.testing.assert_array_equal(moved[:, 1:, :-2], frames[:, :-1, 2:])
    np.testing.assert_array_equal(moved[:, 0], 0)
    np.testing.assert_array_equal(moved[:, :, -2:], 0)
    np.testing.assert_array_equal(by_frames[:, :-1, 2:], 1)
    np.testing.assert_array_equal(by_frames[:, -1], 0)
    np.testing.assert_array_equal(by_frames[:, :, :2], 0)
    right = frames[:, :-1, 3:] - frames[:, :-1, 2:-1]
    below = frames[:, 1:, 2:] - frames[:, :-1, 2:]
    np.testing.assert_allclose(by_flow[:, 1:, :-3, 0], right.sum(-1), rtol=1e-5)
    np.testing.assert_allclose(by_flow[:, 1:, :-2, 1], below.sum(-1), rtol=1e-5)


@pytest.mark.usefixtures("platform")
def test_outside_of_the_frame_all_is_zero_and_nan_stays_where_it_is():
    frames, flow = draw(3, scale=0.1)
    flow[0, 1, 2] = 0, np.inf
    flow[0, 2, 3] = -1e30, 0
    flow[0, 3, 4] = 7, 0
    flow[1, 1, 1] = 0, np.nan
    moved, _, by_flow = gradients_of(np.float32(frames), np.float32(flow))
    for place in ((0, 1, 2), (0, 2, 3), (0, 3, 4)):
        assert not moved[place].any()
        assert not by_flow[place].any()
    is_nan = np.zeros((2, HEIGHT, WIDTH), bool)
    is_nan[1, 1, 1] = True
    np.testing.assert_array_equal(np.isnan(moved).any(-1), is_nan)


def test_positions_are_exact_in_half_precision():
    """bfloat16 has no 299, and frames keep their dtype."""
    frames = jnp.arange(300, dtype=jnp.bfloat16).reshape(1, 1, 300, 1)
    flow = jnp.zeros((1, 1, 300, 2), jnp.bfloat16)
    results = gradients_of(frames, flow)
    moved, *_ = results
    assert {x.dtype for x in results} == {jnp.dtype("bfloat16")}
    np.testing.assert_array_equal(moved, frames)


@pytest.mark.parametrize("links", [(), (3,)])
def test_pytorchs_grid_sample(links):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    frames, flow = draw(5, links, seed=1)
    cotangent = np.random.default_rng(2).normal(size=(*flow.shape[:-1], 5))
    with jax.enable_x64(True):
        found, *gradients = gradients_of(frames, flow, cotangent)
    theirs, their_flow = (torch.tensor(x, requires_grad=True) for x in (frames, flow))
    x = torch.arange(WIDTH).reshape(1, 1, -1, *[1] * len(links)) + their_flow[..., 0]
    y = torch.arange(HEIGHT).reshape(1, -1, 1, *[1] * len(links)) + their_flow[..., 1]
    grid = torch.stack([2 * x / (WIDTH - 1) - 1, 2 * y / (HEIGHT - 1) - 1], dim=-1)
    moved = torch.nn.functional.grid_sample(
        theirs.permute(0, 3, 1, 2), grid.reshape(2, HEIGHT, -1, 2), align_corners=True
    )
    moved = moved.permute(0, 2, 3, 1).reshape(cotangent.shape)
    moved.backward(torch.tensor(cotangent))
    np.testing.assert_allclose(found, moved.detach(), rtol=1e-9, atol=1e-9)
    for mine, their in zip(gradients, (theirs, their_flow), strict=True):
        np.testing.assert_allclose(mine, their.grad, rtol=1e-9, atol=1e-9)
