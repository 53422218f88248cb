"""Ways to write the recurrent convolution of a ConvLSTM's loop, side by side.

    python benchmarks/convolution.py
    python benchmarks/convolution.py --fusions DOT --shapes 64x64

Ten steps of a layer without input, forwards only, where the hoisted pre-activations of
its input are added: what the fused op does or might do. All variants are compared with
the first before they are timed, and take turns in one process; `ratio` is the first
one's time by a variant's, the median over the rounds: above 1, it is faster.

    direct           one convolution, hoisted pre-activations added gate by gate
    direct, at once  the same, added on all 4F channels before gates are split
    tiles of m       Winograd's algorithm with m×m outputs a tile
    padded           the larger tiles, with F filled up to a multiple of 32
    two layers       two direct layers of one shape, a step of each at a time
    diagonal         the same two as one grouped convolution (layer l at t beside layer
                     l-1 at t+1); its ratio is to "two layers"

`--fusions` is what XLA:CPU hands to its newer library of kernels: "none" (as main.py
sets it), "INDIVIDUAL_DOT" (its default), "DOT" or "DOT,ELTWISE".
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

# Run as a script, the repository is not on the path unless it is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.machine import machine_line

NUM_STEPS = 10
# B, H, W, F, K: those of `train_step.py`.
SHAPES = {
    "16x16": (8, 16, 16, 128, 5),
    "64x64": (4, 64, 64, 64, 3),
    "40x40": (10, 40, 40, 40, 3),
}
FUSIONS = ("none", "INDIVIDUAL_DOT", "DOT", "DOT,ELTWISE")


def set_fusions(fusions: str) -> None:
    """Sets XLA's flag; before JAX starts."""
    flag = "--xla_cpu_experimental_ynn_fusion_type="
    names = () if fusions == "none" else fusions.split(",")
    types = ",".join(f"LIBRARY_FUSION_TYPE_{name}" for name in names)
    os.environ["XLA_FLAGS"] = flag + types


def variants(
    batch: int, height: int, width: int, features: int, size: int
) -> tuple[dict[str, Callable[..., Any]], tuple[Any, ...]]:
    """Functions of a hidden state, a kernel and hoisted gates; and these."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    from convlstm_jax.cells.convlstm import split_gates
    from convlstm_jax.ops import winograd
    from convlstm_jax.ops.convolution import same_convolution
    from convlstm_jax.ops.winograd import Winograd

    generator = np.random.default_rng(0)

    def normal(*shape, scale=1.0):
        return jnp.asarray(scale * generator.standard_normal(shape), jnp.float32)

    scale = (size * size * features) ** -0.5
    hidden = normal(batch, height, width, features)
    kernel = normal(size, size, features, 4 * features, scale=scale)
    hoisted = normal(NUM_STEPS, batch, height, width, 4 * features)

    def state(gates):
        i, f, g, o = gates
        kept = jax.nn.sigmoid(f) + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(kept)

    def loop(convolve, hidden, hoisted, at_once=False):
        def step(hidden, t):
            z, other = convolve(hidden), lax.dynamic_index_in_dim(hoisted, t, 0, False)
            if at_once:
                return state(split_gates(z + other)), None
            pairs = zip(split_gates(z), split_gates(other), strict=True)
            return state(tuple(a + b for a, b in pairs)), None

        return lax.scan(step, hidden, jnp.arange(NUM_STEPS))[0]

    def direct(hidden, kernel, hoisted, at_once=False):
        return loop(lambda h: same_convolution(h, kernel), hidden, hoisted, at_once)

    def tiles(tile_size, hidden, kernel, hoisted, channels=0):
        algorithm = Winograd(tile_size, size, height, width)
        missing = max(0, channels - features)
        if missing:
            hidden = _fill(hidden, missing)
            kernel = _fill(kernel, missing, gates=True)
            kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, missing), (0, 0)))
            hoisted = _fill(hoisted, missing, gates=True)
        kernels = winograd.transform_kernel(algorithm, kernel)

        def convolve(hidden):
            return winograd.convolve(algorithm, hidden, kernels)

        return loop(convolve, hidden, hoisted)[..., :features]

    def two_layers(hidden, kernel, hoisted):
        two = (kernel, kernel * 2)

        def convolve(both):
            each = jnp.split(both, 2, axis=-1)
            return [same_convolution(h, k) for h, k in zip(each, two, strict=True)]

        return _both(convolve, hidden, hoisted)

    def diagonal(hidden, kernel, hoisted):
        grouped = jnp.concatenate([kernel, kernel * 2], axis=-1)

        def convolve(both):
            z = lax.conv_general_dilated(
                both,
                grouped,
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=2,
            )
            return jnp.split(z, 2, axis=-1)

        return _both(convolve, hidden, hoisted)

    def _both(convolve, hidden, hoisted):
        def step(both, t):
            other = split_gates(lax.dynamic_index_in_dim(hoisted, t, 0, False))
            states = [
                state(tuple(a + b for a, b in zip(split_gates(z), other, strict=True)))
                for z in convolve(both)
            ]
            return jnp.concatenate(states, axis=-1), None

        both = jnp.concatenate([hidden, hidden], axis=-1)
        both = lax.scan(step, both, jnp.arange(NUM_STEPS))[0]
        return both[..., :features]

    larger = 4 if size == 3 else 2
    found: dict[str, Callable[..., Any]] = {
        "direct": direct,
        "direct, at once": partial(direct, at_once=True),
        "tiles of 2": partial(tiles, 2),
    }
    if larger == 4:
        found["tiles of 4"] = partial(tiles, 4)
    if features % 32:
        found["padded"] = partial(tiles, larger, channels=-(-features // 32) * 32)
    found |= {"two layers": two_layers, "diagonal": diagonal}
    return found, (hidden, kernel, hoisted)


def _fill(array: Any, missing: int, gates: bool = False) -> Any:
    """Adds zeros along the last axis, or along each of its four gates."""
    import jax.numpy as jnp

    if gates:
        parts = jnp.split(array, 4, axis=-1)
        return jnp.concatenate([_fill(part, missing) for part in parts], axis=-1)
    zeros = jnp.zeros((*array.shape[:-1], missing), array.dtype)
    return jnp.concatenate([array, zeros], axis=-1)


def measure(name: str, num_rounds: int) -> str:
    """All variants on one shape, as a Markdown table."""
    import jax

    functions, arguments = variants(*SHAPES[name])
    programs = {key: jax.jit(run) for key, run in functions.items()}
    expected = np.asarray(programs["direct"](*arguments))
    for key, run in programs.items():
        difference = np.linalg.norm(np.asarray(run(*arguments)) - expected)
        share = float(difference / np.linalg.norm(expected))
        if not share <= 1e-4:
            raise SystemExit(f"{name}: {key} differs by {share:.2g} of the norm")
    seconds: dict[str, list[float]] = {key: [] for key in programs}
    for _ in range(num_rounds):
        for key, run in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(run(*arguments))
            seconds[key].append(time.perf_counter() - start)
    batch, height, width, features, size = SHAPES[name]
    lines = [
        f"**{name}** T{NUM_STEPS} B{batch} {height}×{width}, {features} features, "
        f"{size}×{size}",
        "",
        "| variant | ms a step | ratio |",
        "|---|---|---|",
    ]
    for key, times in seconds.items():
        first = seconds["two layers" if key == "diagonal" else "direct"]
        ratio = median(a / b for a, b in zip(first, times, strict=True))
        lines.append(f"| {key} | {1e3 * median(times) / NUM_STEPS:.2f} | {ratio:.2f} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fusions", choices=FUSIONS, default="none")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=9, help="turns of each")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}: it must be at least 1")
    set_fusions(options.fusions)
    print(
        f"{machine_line(('jax', 'jaxlib'))}; fusions: {options.fusions}\n", flush=True
    )
    for name in options.shapes:
        print(measure(name, options.rounds) + "\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
