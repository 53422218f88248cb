"""PyTorch: eager, with frames stored channels last, and compiled.

`pytorch_compile` compiles the cell, which compiles once for all time steps;
`pytorch_compile_model` the whole network with its loops unrolled. Both store frames
channels last. In bfloat16 all run under autocast.
"""

from typing import Any

import torch
from torch import nn

from benchmarks.contenders import Settings, Skip
from benchmarks.contenders.pytorch_gru import GRULayer
from benchmarks.contenders.pytorch_minimal import MinimalLayer
from benchmarks.contenders.pytorch_networks import (
    EncoderForecaster,
    Layer,
    RecurrentPredictor,
)
from benchmarks.contenders.pytorch_openstl import openstl_network
from benchmarks.contenders.pytorch_weights import (
    by_our_paths,
    load_weights,
    openstl_weights,
)
from benchmarks.workloads import (
    GRU_LAYERS,
    MINIMAL_LAYERS,
    OPENSTL_NETWORKS,
    Arrays,
    Problem,
    Workload,
)


class PyTorchProgram:
    """See `Program`."""

    def __init__(
        self, name: str, workload: Workload, problem: Problem, settings: Settings
    ):
        self._device = "cuda" if settings.device == "gpu" else "cpu"
        # The shapes never change: cuDNN may try what is fastest, as XLA does.
        torch.backends.cudnn.benchmark = True
        self._half = settings.dtype == "bfloat16"
        self._frames_too = workload.is_layer
        network = make_network(workload)
        if workload.system in OPENSTL_NETWORKS:
            load, self._by_our_paths = openstl_weights(workload.system)
        else:
            load, self._by_our_paths = load_weights, by_our_paths
        load(network, problem.weights)
        self._weights = problem.weights
        network = network.to(self._device)
        self._parameters = dict(network.named_parameters())
        frames = torch.from_numpy(problem.inputs["frames"]).to(self._device)
        frames = frames.permute(0, 1, 4, 2, 3)
        if name == "pytorch":
            frames = frames.contiguous()
        else:
            network = network.to(memory_format=torch.channels_last)
        self._frames = frames.requires_grad_(self._frames_too)
        self._others = [
            torch.from_numpy(problem.inputs[key]).to(self._device, torch.float32)
            for key in ("teacher_forcing",)
            if key in problem.inputs
        ]
        self._cotangent = torch.from_numpy(problem.cotangent).to(self._device)
        self._network: Any = network
        if name.startswith("pytorch_compile"):
            self._compile_network(whole=name == "pytorch_compile_model")

    def _compile_network(self, *, whole: bool) -> None:
        try:
            probe = torch.compile(lambda x: torch.tanh(x) + 1)
            probe(torch.ones(8, device=self._device))
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise Skip(f"torch.compile does not work here: {reason}") from error
        # Every cell has shapes of its own, forward with and without gradients.
        for name in ("recompile_limit", "cache_size_limit"):
            if hasattr(torch._dynamo.config, name):
                setattr(torch._dynamo.config, name, 64)
        if whole:
            self._network = torch.compile(self._network, dynamic=False)
            return
        for module in self._network.modules():
            if hasattr(module, "features"):  # A cell.
                module.compile(dynamic=False)

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

    def _outputs(self) -> torch.Tensor:
        with torch.autocast(self._device, torch.bfloat16, enabled=self._half):
            return self._network(self._frames, *self._others)

    def compile(self) -> None:
        """Runs both once: what is compiled is so by the first call."""
        self.forward()
        self.train()

    def forward(self) -> torch.Tensor:
        """See `Program`."""
        with torch.no_grad():
            outputs = self._outputs()
        self._wait()
        return outputs

    def train(self) -> tuple[torch.Tensor, ...]:
        """See `Program`."""
        wanted = list(self._parameters.values())
        if self._frames_too:
            wanted.append(self._frames)
        loss = (self._outputs().float() * self._cotangent).sum()
        gradients = torch.autograd.grad(loss, wanted)
        self._wait()
        return gradients

    def results(self) -> Arrays:
        """See `Program`."""
        outputs = self.forward().float().cpu().numpy()
        gradients = [gradient.float().cpu().numpy() for gradient in self.train()]
        by_name = dict(zip(self._parameters, gradients, strict=False))
        found = self._by_our_paths(by_name, self._weights)
        if self._frames_too:
            found["frames"] = gradients[-1].transpose(0, 1, 3, 4, 2)
        return {"outputs": outputs} | found

    def device_facts(self) -> dict[str, Any]:
        """See `Program`."""
        if self._device == "cpu":
            return {"device": "cpu"}
        torch.cuda.reset_peak_memory_stats()
        self.train()
        peak = torch.cuda.max_memory_allocated()
        return {"device": torch.cuda.get_device_name(), "peak_bytes": peak}


def build(
    name: str, workload: Workload, problem: Problem, settings: Settings
) -> PyTorchProgram:
    """See `Program`."""
    if settings.device == "gpu" and not torch.cuda.is_available():
        raise Skip("the PyTorch that is installed sees no GPU")
    return PyTorchProgram(name, workload, problem, settings)


def make_network(workload: Workload) -> nn.Module:
    """The workload's system, weights not yet set."""
    depth = workload.patched_shape[-1]
    features, size = workload.features, workload.kernel_size
    if workload.system == "layer":
        return Layer(depth, features[0], size)
    if workload.system in MINIMAL_LAYERS:
        return MinimalLayer(depth, features[0], size, MINIMAL_LAYERS[workload.system])
    if workload.system in GRU_LAYERS:
        return GRULayer(depth, features[0], size, workload.num_links)
    patch_size = workload.patch_size
    if workload.system == "encoder_forecaster":
        return EncoderForecaster(
            depth, features, size, patch_size, workload.num_outputs
        )
    if workload.system in OPENSTL_NETWORKS:
        return openstl_network(
            workload.system, depth, features, size, patch_size,
            size=workload.patched_shape[:2],
        )  # fmt: skip
    return RecurrentPredictor(depth, features, size, patch_size)
