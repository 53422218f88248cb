"""The GRUs of HKO-7 as ports to PyTorch have them; frames are `[B, C, H, W]`."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.contenders.pytorch_networks import stack_frames
from benchmarks.workloads import FLOW_FEATURES, FLOW_KERNEL_SIZE


class GRUCell(nn.Module):
    """ConvGRU, or with links TrajGRU."""

    def __init__(self, channels: int, features: int, kernel_size: int, num_links: int):
        super().__init__()
        self.features, self.num_links = features, num_links

        def convolution(inputs: int, outputs: int, size: int, bias: bool = True):
            return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias)

        self.input = convolution(channels, 3 * features, kernel_size)
        reads = num_links * features or features
        size = 1 if num_links else kernel_size
        self.recurrent = convolution(reads, 3 * features, size, bias=False)
        self.recurrent_bias = nn.Parameter(torch.zeros(features))
        if num_links:
            size = FLOW_KERNEL_SIZE
            self.flow = convolution(channels + features, FLOW_FEATURES, size)
            self.flow_output = convolution(FLOW_FEATURES, 2 * num_links, size)

    def forward(self, frame: Tensor, hidden: Tensor) -> Tensor:
        """One step; returns the new state."""
        x_z, x_r, x_n = self.input(frame).chunk(3, dim=1)
        read = self._warped(frame, hidden) if self.num_links else hidden
        h_z, h_r, h_n = self.recurrent(read).chunk(3, dim=1)
        z, r = torch.sigmoid(x_z + h_z), torch.sigmoid(x_r + h_r)
        h_n = h_n + self.recurrent_bias[:, None, None]
        candidate = functional.leaky_relu(x_n + r * h_n, 0.2)
        return z * hidden + (1 - z) * candidate

    def _warped(self, frame: Tensor, hidden: Tensor) -> Tensor:
        """The state along each flow, `[B, L·F, H, W]`."""
        flow = self.flow(torch.cat([frame, hidden], dim=1))
        flow = self.flow_output(functional.leaky_relu(flow, 0.2))
        height, width = hidden.shape[2:]
        flow = flow.to(torch.promote_types(flow.dtype, torch.float32))
        columns = torch.arange(width, device=flow.device, dtype=flow.dtype)
        rows = torch.arange(height, device=flow.device, dtype=flow.dtype)
        warped = []
        for u, v in (pair.unbind(1) for pair in flow.unflatten(1, (-1, 2)).unbind(1)):
            x = 2 * (columns - u) / (width - 1) - 1
            y = 2 * (rows[:, None] - v) / (height - 1) - 1
            grid = torch.stack([x, y], dim=-1)
            warped.append(functional.grid_sample(hidden, grid, align_corners=True))
        return torch.cat(warped, dim=1)


class GRULayer(nn.Module):
    """One layer over a sequence."""

    def __init__(self, channels: int, features: int, kernel_size: int, num_links: int):
        super().__init__()
        self.cell = GRUCell(channels, features, kernel_size, num_links)

    def forward(self, frames: Tensor) -> Tensor:
        """`[B, T, C, H, W]` to `[B, T, H, W, F]`."""
        hidden = frames.new_zeros(
            frames.shape[0], self.cell.features, *frames.shape[3:]
        )
        if frames[:, 0].is_contiguous(memory_format=torch.channels_last):
            hidden = hidden.contiguous(memory_format=torch.channels_last)
        outputs = []
        for frame in frames.unbind(1):
            hidden = self.cell(frame, hidden)
            outputs.append(hidden)
        return stack_frames(outputs)
