"""Layers of minimal cells in PyTorch: convolutions of all frames, then a short loop."""

import torch
from torch import Tensor, nn

from benchmarks.contenders.pytorch_networks import stack_frames


class MinimalCell(nn.Module):
    """All frames of a minGRU (two gates) or minLSTM (three)."""

    def __init__(self, channels: int, features: int, kernel_size: int, num_gates: int):
        super().__init__()
        self.features, self.num_gates = features, num_gates
        self.convolution = nn.Conv2d(
            channels, num_gates * features, kernel_size, padding=kernel_size // 2
        )

    def forward(self, frames: Tensor) -> list[Tensor]:
        """`[B, T, C, H, W]` to T states `[B, F, H, W]`."""
        *gates, n = self.convolution(frames.flatten(0, 1)).chunk(self.num_gates, dim=1)
        if self.num_gates == 2:
            update = torch.sigmoid(gates[0])
        else:
            f, i = map(torch.sigmoid, gates)
            update = i / (f + i)
        candidate = torch.where(n >= 0, n + 0.5, torch.sigmoid(n))
        update, candidate = (
            x.unflatten(0, frames.shape[:2]) for x in (update, candidate)
        )
        hidden = torch.zeros_like(candidate[:, 0])
        states = []
        for n, z in zip(candidate.unbind(1), update.unbind(1), strict=True):
            hidden = torch.lerp(hidden, n, z)
            states.append(hidden)
        return states


class MinimalLayer(nn.Module):
    """One layer over a sequence."""

    def __init__(self, channels: int, features: int, kernel_size: int, num_gates: int):
        super().__init__()
        self.cell = MinimalCell(channels, features, kernel_size, num_gates)

    def forward(self, frames: Tensor) -> Tensor:
        """`[B, T, C, H, W]` to `[B, T, H, W, F]`."""
        return stack_frames(self.cell(frames))
