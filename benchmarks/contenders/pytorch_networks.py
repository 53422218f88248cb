"""The systems as PyTorch users write them; frames are `[B, C, H, W]`."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

State = tuple[Tensor, Tensor]


class Cell(nn.Module):
    """The usual cell: one convolution over input and hidden state together."""

    def __init__(self, channels: int, features: int, kernel_size: int):
        super().__init__()
        self.features = features
        self.convolution = nn.Conv2d(
            channels + features, 4 * features, kernel_size, padding=kernel_size // 2
        )

    def forward(
        self, frame: Tensor | None, hidden: Tensor, cell_state: Tensor
    ) -> State:
        """One step; returns h and c."""
        read = hidden if frame is None else torch.cat([frame, hidden], dim=1)
        i, f, g, o = self.convolution(read).chunk(4, dim=1)
        cell_state = torch.sigmoid(f) * cell_state + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell_state), cell_state


class TwoConvolutionCell(nn.Module):
    """OpenSTL's cell: a convolution each for input and hidden state, without bias."""

    def __init__(self, channels: int, features: int, kernel_size: int):
        super().__init__()
        self.features = features

        def convolution(inputs: int) -> nn.Conv2d:
            padding = kernel_size // 2
            return nn.Conv2d(
                inputs, 4 * features, kernel_size, padding=padding, bias=False
            )

        self.conv_x = convolution(channels)
        self.conv_h = convolution(features)

    def forward(self, frame: Tensor, hidden: Tensor, cell_state: Tensor) -> State:
        """One step; returns h and c."""
        from_input, from_hidden = self.conv_x(frame), self.conv_h(hidden)
        i, f, g, o = (from_input + from_hidden).chunk(4, dim=1)
        cell_state = torch.sigmoid(f) * cell_state + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell_state), cell_state


def zero_state(cell: Any, frame: Tensor) -> State:
    """Zeros in the memory format of the frame."""
    batch, _, height, width = frame.shape
    channels_last = frame.is_contiguous(memory_format=torch.channels_last)
    shape = (batch, cell.features, height, width)
    zeros = torch.zeros(shape, device=frame.device)
    if channels_last:
        zeros = zeros.contiguous(memory_format=torch.channels_last)
    return zeros, zeros


def stack_frames(frames: list[Tensor]) -> Tensor:
    """`[B, T, H, W, C]` over frames in the memory format that they are in."""
    if frames[0].is_contiguous(memory_format=torch.channels_last):
        return torch.stack([frame.permute(0, 2, 3, 1) for frame in frames], dim=1)
    return torch.stack(frames, dim=1).permute(0, 1, 3, 4, 2)


class Layer(nn.Module):
    """One ConvLSTM layer over a sequence."""

    def __init__(self, channels: int, features: int, kernel_size: int):
        super().__init__()
        self.cell = Cell(channels, features, kernel_size)

    def forward(self, frames: Tensor) -> Tensor:
        """`[B, T, C, H, W]` to `[B, T, H, W, F]`."""
        hidden, cell_state = zero_state(self.cell, frames[:, 0])
        outputs = []
        for t in range(frames.shape[1]):
            hidden, cell_state = self.cell(frames[:, t], hidden, cell_state)
            outputs.append(hidden)
        return stack_frames(outputs)


class EncoderForecaster(nn.Module):
    """The encoder–forecaster of Shi et al. 2015 without peepholes."""

    def __init__(
        self,
        depth: int,
        features: tuple[int, ...],
        kernel_size: int,
        patch_size: int,
        num_outputs: int,
    ):
        super().__init__()
        self.patch_size = patch_size
        self.num_outputs = num_outputs

        def cells(first: int) -> nn.ModuleList:
            channels = (first, *features[:-1])
            pairs = zip(channels, features, strict=True)
            return nn.ModuleList(Cell(c, f, kernel_size) for c, f in pairs)

        self.encoder, self.forecaster = cells(depth), cells(0)
        self.output = nn.Conv2d(sum(features), depth, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """`[B, T, C, H, W]` to logits `[B, num_outputs, H, W, C]`."""
        patches = [
            functional.pixel_unshuffle(frame, self.patch_size)
            for frame in frames.unbind(1)
        ]
        states = [zero_state(cell, patches[0]) for cell in self.encoder]
        for hidden in patches:
            for index, cell in enumerate(self.encoder):
                states[index] = cell(hidden, *states[index])
                hidden = states[index][0]
        outputs = []
        for _ in range(self.num_outputs):
            read: Tensor | None = None
            for index, cell in enumerate(self.forecaster):
                states[index] = cell(read, *states[index])
                read = states[index][0]
            logits = self.output(torch.cat([hidden for hidden, _ in states], dim=1))
            outputs.append(functional.pixel_shuffle(logits, self.patch_size))
        return stack_frames(outputs)


class RecurrentPredictor(nn.Module):
    """OpenSTL's ConvLSTM: a step reads its frame, or what the step before predicted."""

    def __init__(
        self, depth: int, features: tuple[int, ...], kernel_size: int, patch_size: int
    ):
        super().__init__()
        self.patch_size = patch_size
        pairs = zip((depth, *features[:-1]), features, strict=True)
        self.cells = nn.ModuleList(
            TwoConvolutionCell(c, f, kernel_size) for c, f in pairs
        )
        self.output = nn.Conv2d(features[-1], depth, 1, bias=False)

    def forward(self, frames: Tensor, teacher_forcing: Tensor) -> Tensor:
        """`[B, S, C, H, W]` and 0 or 1 `[B, S]` to `[B, S, H, W, C]`."""
        patches = [
            functional.pixel_unshuffle(frame, self.patch_size)
            for frame in frames.unbind(1)
        ]
        states = [zero_state(cell, patches[0]) for cell in self.cells]
        prediction = patches[0]
        outputs = []
        for step, frame in enumerate(patches):
            mask = teacher_forcing[:, step, None, None, None]
            hidden = mask * frame + (1 - mask) * prediction
            for index, cell in enumerate(self.cells):
                states[index] = cell(hidden, *states[index])
                hidden = states[index][0]
            prediction = self.output(hidden)
            outputs.append(functional.pixel_shuffle(prediction, self.patch_size))
        return stack_frames(outputs)
