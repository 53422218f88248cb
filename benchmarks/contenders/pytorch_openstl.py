"""PredRNN, PredRNN++ and MIM in PyTorch, with the names of OpenSTL's state dicts.

Without the convolutions that OpenSTL's cells hold and never use. Frames are
`[B, C, H, W]`; convolutions have no bias.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.contenders.pytorch_networks import stack_frames

Size = tuple[int, int]


class Convolutions(nn.Module):
    """A module of convolutions, each followed by a layer norm if `norm_size` is given.

    Attributes:
        features: F.
    """

    def __init__(self, features: int, kernel_size: int, norm_size: Size | None):
        super().__init__()
        self.features = features
        self._kernel_size, self._norm_size = kernel_size, norm_size

    def add(self, **channels: tuple[int, int]) -> None:
        """Adds convolutions by name, given what they read and the gates they give."""
        size = self._kernel_size
        for name, (inputs, gates) in channels.items():
            outputs = gates * self.features
            conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
            modules: list[nn.Module] = [conv]
            if self._norm_size:
                modules.append(nn.LayerNorm([outputs, *self._norm_size]))
            setattr(self, name, nn.Sequential(*modules))

    def add_last(self) -> None:
        """Adds the 1×1 convolution over two states."""
        self.conv_last = nn.Conv2d(2 * self.features, self.features, 1, bias=False)


class SpatiotemporalLSTM(Convolutions):
    """PredRNN's cell."""

    def __init__(self, channels: int, features: int, *how: Any):
        super().__init__(features, *how)
        f = features
        self.add(conv_x=(channels, 7), conv_h=(f, 4), conv_m=(f, 3), conv_o=(2 * f, 1))
        self.add_last()

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> Any:
        """One step; returns h, c, m."""
        xi, xf, xg, xi2, xf2, xg2, xo = self.conv_x(x).chunk(7, dim=1)
        hi, hf, hg, ho = self.conv_h(h).chunk(4, dim=1)
        mi, mf, mg = self.conv_m(m).chunk(3, dim=1)
        c = torch.sigmoid(xf + hf + 1) * c + torch.sigmoid(xi + hi) * torch.tanh(
            xg + hg
        )
        m = torch.sigmoid(xf2 + mf + 1) * m + torch.sigmoid(xi2 + mi) * torch.tanh(
            xg2 + mg
        )
        both = torch.cat([c, m], dim=1)
        o = torch.sigmoid(xo + ho + self.conv_o(both))
        return o * torch.tanh(self.conv_last(both)), c, m


class CausalLSTM(Convolutions):
    """PredRNN++'s cell."""

    def __init__(self, channels: int, features: int, *how: Any):
        super().__init__(features, *how)
        f = features
        self.add(conv_x=(channels, 7), conv_h=(f, 4), conv_c=(f, 3), conv_m=(f, 3))
        self.add(conv_c2m=(f, 4), conv_om=(f, 1))
        self.add_last()

    def forward(self, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> Any:
        """One step; returns h, c, m."""
        sigmoid, tanh = torch.sigmoid, torch.tanh
        xi, xf, xg, xi2, xf2, xg2, xo = self.conv_x(x).chunk(7, dim=1)
        hi, hf, hg, ho = self.conv_h(h).chunk(4, dim=1)
        ci, cf, cg = self.conv_c(c).chunk(3, dim=1)
        mi, mf, mm = self.conv_m(m).chunk(3, dim=1)
        c = sigmoid(xf + hf + cf + 1) * c + sigmoid(xi + hi + ci) * tanh(xg + hg + cg)
        ni, ng, nf, no = self.conv_c2m(c).chunk(4, dim=1)
        new = sigmoid(xi2 + mi + ni) * tanh(xg2 + ng)
        m = sigmoid(xf2 + mf + nf + 1) * tanh(mm) + new
        o = tanh(xo + ho + no + self.conv_om(m))
        return o * tanh(self.conv_last(torch.cat([c, m], dim=1))), c, m


class GradientHighway(Convolutions):
    """PredRNN++'s gradient highway unit."""

    def __init__(self, features: int, *how: Any):
        super().__init__(features, *how)
        self.add(z_concat=(features, 2), x_concat=(features, 2))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """One step."""
        p, s = (self.x_concat(x) + self.z_concat(z)).chunk(2, dim=1)
        s = torch.sigmoid(s)
        return s * torch.tanh(p) + (1 - s) * z


class MemoryModule(Convolutions):
    """MIM-N, and the part of `MIMBlock` that is MIM-S."""

    def __init__(self, features: int, size: Size, *how: Any):
        super().__init__(features, *how)
        self.ct_weight = nn.Parameter(torch.zeros(2 * features, *size))
        self.oc_weight = nn.Parameter(torch.zeros(features, *size))
        self.add(conv_h_concat=(features, 4), conv_x_concat=(features, 4))

    def module_step(self, x: Tensor, h: Tensor, c: Tensor) -> Any:
        """One step; returns h and c."""
        gates = self.conv_x_concat(x) + self.conv_h_concat(h)
        i, g, f, o = gates.chunk(4, dim=1)
        i_c, f_c = self.ct_weight.chunk(2, dim=0)
        i, f = torch.sigmoid(i + i_c * c), torch.sigmoid(f + f_c * c + 1)
        c = f * c + i * torch.tanh(g)
        return torch.sigmoid(o + self.oc_weight * c) * torch.tanh(c), c

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Any:
        """See `module_step`."""
        return self.module_step(x, h, c)


class MIMBlock(MemoryModule):
    """MIM's cell, without its MIM-N."""

    def __init__(self, features: int, size: Size, *how: Any):
        super().__init__(features, size, *how)
        f = features
        self.add(conv_t_cc=(f, 3), conv_s_cc=(f, 4), conv_x_cc=(f, 4))
        self.add_last()

    def forward(  # type: ignore[override]
        self, x: Tensor, d: Tensor, h: Tensor, c: Tensor, m: Tensor, s: Tensor
    ) -> Any:
        """One step; returns h, c, m, s."""
        sigmoid, tanh = torch.sigmoid, torch.tanh
        xi, xg, xf, xo = self.conv_x_cc(x).chunk(4, dim=1)
        hi, hg, ho = self.conv_t_cc(h).chunk(3, dim=1)
        mi, mg, mf, mo = self.conv_s_cc(m).chunk(4, dim=1)
        t, s = self.module_step(d, c, s)
        m = sigmoid(xf + mf + 1) * m + sigmoid(xi + mi) * tanh(xg + mg)
        c = t + sigmoid(xi + hi) * tanh(xg + hg)
        last = self.conv_last(torch.cat([c, m], dim=1))
        return sigmoid(xo + ho + mo) * tanh(last), c, m, s


class OpenSTLNetwork(nn.Module):
    """A stack of layers; a step reads its frame, or what the step before predicted.

    `size` is (height, width) of a patched frame.
    """

    def __init__(
        self,
        depth: int,
        features: tuple[int, ...],
        kernel_size: int,
        patch_size: int,
        *,
        size: Size,
        layer_norm: bool = False,
    ):
        super().__init__()
        self.patch_size, self._size = patch_size, size
        how = (kernel_size, size if layer_norm else None)
        self.conv_last = nn.Conv2d(features[-1], depth, 1, bias=False)
        self.build((depth, *features[:-1]), features, how)

    def build(self, channels: Any, features: Any, how: Any) -> None:
        """Adds the cells."""
        raise NotImplementedError

    def layers(self, zeros: Tensor) -> Any:
        """A generator: is sent frames, yields the last layer's h."""
        raise NotImplementedError

    def forward(self, frames: Tensor, teacher_forcing: Tensor) -> Tensor:
        """`[B, T, C, H, W]` and 0 or 1 `[B, S]` to `[B, S, H, W, C]`."""
        patches = functional.pixel_unshuffle(frames.flatten(0, 1), self.patch_size)
        patches = patches.unflatten(0, frames.shape[:2])
        first = patches[:, 0]
        shape = (len(first), self.conv_last.in_channels, *first.shape[2:])
        zeros = torch.zeros(shape, device=frames.device)
        if first.is_contiguous(memory_format=torch.channels_last):
            zeros = zeros.contiguous(memory_format=torch.channels_last)
        layers = self.layers(zeros)
        next(layers)
        prediction, outputs = first, []
        for step in range(teacher_forcing.shape[1]):
            read = prediction
            if step < patches.shape[1]:
                mask = teacher_forcing[:, step, None, None, None]
                read = mask * patches[:, step] + (1 - mask) * prediction
            prediction = self.conv_last(layers.send(read))
            outputs.append(functional.pixel_shuffle(prediction, self.patch_size))
        return stack_frames(outputs)


class PredRNN(OpenSTLNetwork):
    """PredRNN."""

    cell: Any = SpatiotemporalLSTM

    def build(self, channels: Any, features: Any, how: Any) -> None:
        """See `OpenSTLNetwork`."""
        pairs = zip(channels, features, strict=True)
        self.cell_list = nn.ModuleList(self.cell(c, f, *how) for c, f in pairs)

    def layers(self, zeros: Tensor) -> Iterator[Tensor]:
        """See `OpenSTLNetwork`."""
        states, memory = [(zeros, zeros)] * len(self.cell_list), zeros
        hidden = yield zeros
        while True:
            for index, cell in enumerate(self.cell_list):
                hidden, c, memory = cell(hidden, *states[index], memory)
                states[index] = (hidden, c)
                hidden = self.after(index, hidden)
            hidden = yield hidden

    def after(self, index: int, hidden: Tensor) -> Tensor:
        """What stands above a layer."""
        return hidden


class PredRNNpp(PredRNN):
    """PredRNN++."""

    cell = CausalLSTM

    def build(self, channels: Any, features: Any, how: Any) -> None:
        """See `OpenSTLNetwork`."""
        super().build(channels, features, how)
        self.gradient_highway = GradientHighway(features[0], *how)

    def layers(self, zeros: Tensor) -> Iterator[Tensor]:
        """See `OpenSTLNetwork`."""
        self._z = zeros
        return super().layers(zeros)

    def after(self, index: int, hidden: Tensor) -> Tensor:
        """See `PredRNN`."""
        if index:
            return hidden
        self._z = self.gradient_highway(hidden, self._z)
        return self._z


class MIM(OpenSTLNetwork):
    """MIM."""

    def build(self, channels: Any, features: Any, how: Any) -> None:
        """See `OpenSTLNetwork`."""
        bottom = SpatiotemporalLSTM(channels[0], features[0], *how)
        blocks = [MIMBlock(f, self._size, *how) for f in features[1:]]
        self.stlstm_layer = nn.ModuleList([bottom, *blocks])
        self.stlstm_layer_diff = nn.ModuleList(
            MemoryModule(f, self._size, *how) for f in features[1:]
        )

    def layers(self, zeros: Tensor) -> Iterator[Tensor]:
        """See `OpenSTLNetwork`."""
        bottom, *blocks = self.stlstm_layer
        h, c, memory = zeros, zeros, zeros
        states = [(zeros, zeros, zeros)] * len(blocks)
        differences = [(zeros, zeros)] * len(blocks)
        started = False
        hidden = yield zeros
        while True:
            before = h
            h, c, memory = bottom(hidden, h, c, memory)
            hidden, difference = h, h - before
            for n, block in enumerate(blocks):
                if started:
                    module = self.stlstm_layer_diff[n]
                    differences[n] = module(difference, *differences[n])
                difference = differences[n][0]
                block_h, block_c, s = states[n]
                hidden, block_c, memory, s = block(
                    hidden, difference, block_h, block_c, memory, s
                )
                states[n] = (hidden, block_c, s)
            started = True
            hidden = yield hidden


def openstl_network(cell: str, *arguments: Any, **options: Any) -> OpenSTLNetwork:
    """The network with the cell that this project calls so."""
    networks = {"predrnn": PredRNN, "predrnnpp": PredRNNpp, "mim": MIM}
    return networks[cell](*arguments, **options)
