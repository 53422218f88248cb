"""Who is measured: this project and its peers, each in a file of its own."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from benchmarks.workloads import MINIMAL_LAYERS, SYSTEMS, Arrays

OURS = "convlstm_jax"


class Settings(NamedTuple):
    """How a contender computes.

    Attributes:
        device: "cpu" or "gpu".
        dtype: "float32" or "bfloat16" of the convolutions; the cell state and the
            weights are float32.
        memory: what this project's layers keep, see `RecurrentLayer`.
    """

    device: str = "cpu"
    dtype: str = "float32"
    memory: str = "default"


class Skip(Exception):
    """A contender that cannot run here, and why."""


class Program(Protocol):
    """A contender's programs for one workload."""

    def compile(self) -> None:
        """Makes ready to run: compiles, or runs once where that is what compiles."""

    def forward(self) -> Any:
        """The outputs, in the contender's own form, once they are computed."""

    def train(self) -> Any:
        """The gradients of the weights (a layer's inputs too), likewise."""

    def results(self) -> Arrays:
        """One forward and one train call: "outputs", and gradients by path."""

    def device_facts(self) -> dict[str, Any]:
        """Its name, "device", and "peak_bytes" of its memory where it counts that.

        Of JAX programs besides, for training: "kept_bytes", what the backward pass is
        given besides weights and frames, and "temporary_bytes", what XLA plans besides
        arguments and gradients.
        """


@dataclass(frozen=True)
class Contender:
    """Where a contender is found, and what it needs.

    Attributes:
        module: of `benchmarks.contenders`; its `build` makes a `Program`.
        packages: what must be installed, as it is imported.
        systems: the systems it has.
        dtypes: the dtypes it is measured in.
        slow_on: devices on which a run takes a minute; it then runs fewer rounds.
        by_default: whether it runs when no contenders are named.
        environment: variables of its process.
        other_system: what it runs in place of the workload's system, on the same shape;
            it is then compared in time alone.
    """

    module: str
    packages: tuple[str, ...]
    systems: tuple[str, ...] = SYSTEMS
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    slow_on: tuple[str, ...] = ()
    by_default: bool = True
    environment: dict[str, str] = field(default_factory=dict)
    other_system: str = ""


_LAYER = ("layer",)
_FLOAT32 = ("float32",)

CONTENDERS = {
    OURS: Contender("this_project", ("jax", "flax")),
    "pytorch": Contender("pytorch", ("torch",)),
    "pytorch_channels_last": Contender("pytorch", ("torch",)),
    "pytorch_compile": Contender("pytorch", ("torch",)),
    # Unrolls the whole network: minutes to compile.
    "pytorch_compile_model": Contender("pytorch", ("torch",), by_default=False),
    "keras_tensorflow": Contender(
        "keras_tensorflow",
        ("keras", "tensorflow"),
        _LAYER,
        _FLOAT32,
        environment={"KERAS_BACKEND": "tensorflow"},
    ),
    "keras_jax": Contender(
        "keras_jax",
        ("keras", "jax"),
        _LAYER,
        _FLOAT32,
        slow_on=("cpu",),
        environment={"KERAS_BACKEND": "jax"},
    ),
    # What a minimal cell saves.
    "our_convlstm": Contender(
        "this_project",
        ("jax", "flax"),
        tuple(MINIMAL_LAYERS),
        by_default=False,
        other_system="layer",
    ),
    "flax_rnn": Contender("flax_rnn", ("jax", "flax"), _LAYER, slow_on=("cpu",)),
    # What the engine saves; minutes for a training step.
    "plain_scan": Contender(
        "plain_scan",
        ("jax", "flax"),
        tuple(name for name in SYSTEMS if name != "encoder_forecaster"),
        slow_on=("cpu",),
        by_default=False,
    ),
}
