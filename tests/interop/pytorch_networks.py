"""PyTorch's usual ConvLSTM cells, a stack of them, and the network of the tutorials."""


def _cell_class(torch, *, gate_order, frame_size=None, bias=True, activation="tanh"):
    """Cells of one convolution over cat([x, h]); with peepholes if given a size."""
    nn, apply = torch.nn, getattr(torch, activation)

    class Cell(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.conv = nn.Conv2d(
                inputs + outputs, 4 * outputs, 3, padding=1, bias=bias
            )
            for gate in "iof" if frame_size else "":
                peephole = nn.Parameter(torch.empty(outputs, *frame_size))
                self.register_parameter(f"W_c{gate}", peephole)

        def see(self, gate, cell_state):
            return getattr(self, f"W_c{gate}") * cell_state if frame_size else 0

        def forward(self, frame, hidden, cell_state):
            parts = self.conv(torch.cat([frame, hidden], dim=1)).chunk(4, dim=1)
            z = dict(zip(gate_order, parts, strict=True))
            i = torch.sigmoid(z["i"] + self.see("i", cell_state))
            f = torch.sigmoid(z["f"] + self.see("f", cell_state))
            cell_state = f * cell_state + i * apply(z["g"])
            o = torch.sigmoid(z["o"] + self.see("o", cell_state))
            return o * apply(cell_state), cell_state

        def over_time(self, clip):
            """[B, T, C, H, W] to [B, T, F, H, W]."""
            outputs = self.conv.out_channels // 4
            shape = (clip.shape[0], outputs, *clip.shape[3:])
            hidden = cell_state = torch.zeros(shape)
            frames = []
            for frame in clip.unbind(dim=1):
                hidden, cell_state = self(frame, hidden, cell_state)
                frames.append(hidden)
            return torch.stack(frames, dim=1)

    return Cell


def _randomize(torch, model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                # Small ones too, where the epsilon matters.
                drawn = torch.rand(value.shape, generator=generator)
                value.copy_(0.02**drawn)
            elif value.is_floating_point():
                value.copy_(0.3 * torch.randn(value.shape, generator=generator))
    return model


def stack(torch, channels, features, gate_order, bias, frame_size=None):
    """Cells in a `cell_list`, everything random; with peepholes if given a size."""
    cell = _cell_class(torch, gate_order=gate_order, bias=bias, frame_size=frame_size)

    class Stack(torch.nn.Module):
        def __init__(self):
            super().__init__()
            sizes = zip([channels, *features], features, strict=False)
            self.cell_list = torch.nn.ModuleList(cell(*pair) for pair in sizes)

        def forward(self, clip):
            for cell in self.cell_list:
                clip = cell.over_time(clip)
            return clip

    return _randomize(torch, Stack())


def tutorial(torch, channels, features, frame_size, *, activation, num_normalized):
    """A module with the keys of the tutorial's `Seq2Seq`, everything in it random."""
    nn = torch.nn
    cell = _cell_class(
        torch, gate_order="ifgo", frame_size=frame_size, activation=activation
    )

    class Layer(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.convLSTMcell = cell(inputs, outputs)

        def forward(self, clip):
            """[B, C, T, H, W] to [B, F, T, H, W]."""
            return self.convLSTMcell.over_time(clip.transpose(1, 2)).transpose(1, 2)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.sequential = nn.Sequential()
            sizes = zip([channels, *features], features, strict=False)
            for number, (inputs, outputs) in enumerate(sizes, start=1):
                layer = Layer(inputs, outputs)
                self.sequential.add_module(f"convlstm{number}", layer)
                if number <= num_normalized:
                    norm = nn.BatchNorm3d(outputs)
                    self.sequential.add_module(f"batchnorm{number}", norm)
            self.conv = nn.Conv2d(features[-1], channels, 3, padding=1)

        def forward(self, clip):
            """The frame after a clip [B, C, T, H, W]."""
            return torch.sigmoid(self.conv(self.sequential(clip)[:, :, -1]))

    return _randomize(torch, Model().eval())


def predict(torch, model, clip, num_frames):
    """The frames after a clip [B, T, C, H, W], each from all before it, as NumPy."""
    frames = torch.from_numpy(clip).permute(0, 2, 1, 3, 4)
    with torch.no_grad():
        for _ in range(num_frames):
            frames = torch.cat([frames, model(frames)[:, :, None]], dim=2)
    return frames[:, :, -num_frames:].permute(0, 2, 3, 4, 1).numpy()
