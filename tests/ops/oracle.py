"""Shi et al. 2015, equation 3, in plain NumPy float64: what the ops must equal.

Written from the paper, with loops in place of every idea the ops have: over frames,
clips and kernel positions. Nothing here is shared with the package but the gate order
i, f, g, o.
"""

from typing import NamedTuple

import numpy as np

GATES = "ifgo"


class Layer(NamedTuple):
    """Weights of one layer, with the names and shapes of `ConvLSTMCell`.

    Attributes:
      input_kernel: `[K, K, C, 4F]` or `None`.
      recurrent_kernel: `[K, K, F, 4F]`.
      bias: `[4F]` or `None`.
      peephole: `None`, `[3, F]` or `[3, H, W, F]`, for i, f and o.
    """

    input_kernel: np.ndarray | None
    recurrent_kernel: np.ndarray
    bias: np.ndarray | None
    peephole: np.ndarray | None


def convolve(frame, kernel):
    """One frame `[H, W, C]`, zero padding: out(y, x) = Σ frame(y+dy, x+dx)·kernel."""
    size, _, _, features = kernel.shape
    height, width, _ = frame.shape
    radius = size // 2
    output = np.zeros((height, width, features))
    for y in range(height):
        for x in range(width):
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        weight = kernel[dy + radius, dx + radius]
                        output[y, x] += frame[y + dy, x + dx] @ weight
    return output


def warp(frame, flow):
    """One frame `[H, W, C]`, `flow[y, x]` = (u, v): out(y, x) = frame(y + v, x + u).

    Every pixel counts by its distance from there (arXiv:1706.03458, section 3.3).
    """
    height, width, _ = frame.shape
    output = np.zeros(frame.shape)
    for y, x in np.ndindex(height, width):
        u, v = flow[y, x]
        for row, column in np.ndindex(height, width):
            near = max(0, 1 - abs(y + v - row)) * max(0, 1 - abs(x + u - column))
            output[y, x] += near * frame[row, column]
    return output


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


PHI = {"tanh": np.tanh, "relu": lambda x: np.where(x > 0, x, 0)}


def step(layer, cell_state, hidden, frame, activation):
    """One step for one clip: states `[H, W, F]`, frame `[H, W, C]` or `None`."""
    features = hidden.shape[-1]
    phi = PHI[activation]
    z = convolve(hidden, layer.recurrent_kernel)
    if layer.input_kernel is not None:
        z += convolve(frame, layer.input_kernel)
    if layer.bias is not None:
        z += layer.bias
    z_i, z_f, z_g, z_o = (
        z[..., n * features : (n + 1) * features] for n in range(len(GATES))
    )
    p_i, p_f, p_o = (0, 0, 0) if layer.peephole is None else layer.peephole
    i = sigmoid(z_i + p_i * cell_state)
    f = sigmoid(z_f + p_f * cell_state)
    new_cell_state = f * cell_state + i * phi(z_g)
    o = sigmoid(z_o + p_o * new_cell_state)
    return new_cell_state, o * phi(new_cell_state)


def sequence(layer, inputs, carry, num_steps, activation, valid=None, reverse=False):
    """Every clip alone, and of it the valid frames alone; other outputs are zero.

    Returns:
      Final (c, h), each `[B, H, W, F]`, and the outputs `[B, T, H, W, F]`.
    """
    batch, height, width, features = carry[1].shape
    outputs = np.zeros((batch, num_steps, height, width, features))
    layer, inputs = Layer(*map(_array, layer)), _array(inputs)
    cell_states, hiddens = np.array(carry[0]), np.array(carry[1])
    for clip in range(batch):
        frames = [t for t in range(num_steps) if valid is None or valid[clip, t]]
        c, h = cell_states[clip], hiddens[clip]
        for t in reversed(frames) if reverse else frames:
            frame = None if inputs is None else inputs[clip, t]
            c, h = step(layer, c, h, frame, activation)
            outputs[clip, t] = h
        cell_states[clip], hiddens[clip] = c, h
    return (cell_states, hiddens), outputs


def _array(value):
    return None if value is None else np.asarray(value, np.float64)


def lstm_step(weights, carry, inputs):
    """Graves 2013 (arXiv:1308.0850), equations 7 to 11, over vectors `[B, D]`."""
    c, h = carry
    z = h @ weights["recurrent_kernel"][0, 0] + weights["bias"]
    if inputs is not None:
        z = z + inputs @ weights["input_kernel"][0, 0]
    z_i, z_f, z_g, z_o = np.split(z, 4, axis=-1)
    p_i, p_f, p_o = weights.get("peephole", np.zeros((3, c.shape[-1])))
    c = sigmoid(z_f + p_f * c) * c + sigmoid(z_i + p_i * c) * np.tanh(z_g)
    return c, sigmoid(z_o + p_o * c) * np.tanh(c)
