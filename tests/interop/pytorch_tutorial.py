"""The network of PyTorch's ConvLSTM tutorial: its keys and its arithmetic."""


def build(torch, channels, features, frame_size, *, activation, num_normalized=None):
    """A module with the keys of the tutorial's `Seq2Seq`, everything in it random.

    Args:
      torch: the module.
      channels: of a frame.
      features: hidden channels of each layer.
      frame_size: (height, width).
      activation: "relu" or "tanh".
      num_normalized: layers followed by batch normalisation; all, as in the tutorial,
        if not given.
    """
    nn = torch.nn
    apply = getattr(torch, activation)

    class Cell(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.conv = nn.Conv2d(inputs + outputs, 4 * outputs, 3, padding=1)
            for gate in "iof":
                peephole = nn.Parameter(torch.empty(outputs, *frame_size))
                self.register_parameter(f"W_c{gate}", peephole)

        def forward(self, frame, hidden, cell_state):
            both = torch.cat([frame, hidden], dim=1)
            i, f, g, o = self.conv(both).chunk(4, dim=1)
            kept = torch.sigmoid(f + self.W_cf * cell_state) * cell_state
            cell_state = kept + torch.sigmoid(i + self.W_ci * cell_state) * apply(g)
            o = torch.sigmoid(o + self.W_co * cell_state)
            return o * apply(cell_state), cell_state

    class Layer(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.convLSTMcell = Cell(inputs, outputs)
            self.outputs = outputs

        def forward(self, clip):
            """[B, C, T, H, W] to [B, F, T, H, W]."""
            shape = (clip.shape[0], self.outputs, *clip.shape[3:])
            hidden = cell_state = torch.zeros(shape)
            frames = []
            for frame in clip.unbind(dim=2):
                hidden, cell_state = self.convLSTMcell(frame, hidden, cell_state)
                frames.append(hidden)
            return torch.stack(frames, dim=2)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.sequential = nn.Sequential()
            normalized = len(features) if num_normalized is None else num_normalized
            inputs = [channels, *features]
            for index, outputs in enumerate(features):
                number = index + 1
                layer = Layer(inputs[index], outputs)
                self.sequential.add_module(f"convlstm{number}", layer)
                if index < normalized:
                    norm = nn.BatchNorm3d(outputs)
                    self.sequential.add_module(f"batchnorm{number}", norm)
            self.conv = nn.Conv2d(features[-1], channels, 3, padding=1)

        def forward(self, clip):
            """The frame after a clip [B, C, T, H, W]."""
            return torch.sigmoid(self.conv(self.sequential(clip)[:, :, -1]))

    model = Model().eval()
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


def predict(torch, model, clip, num_frames):
    """The frames after a clip [B, T, C, H, W], each from all before it, as NumPy."""
    frames = torch.from_numpy(clip).permute(0, 2, 1, 3, 4)
    with torch.no_grad():
        for _ in range(num_frames):
            frames = torch.cat([frames, model(frames)[:, :, None]], dim=2)
    return frames[:, :, -num_frames:].permute(0, 2, 3, 4, 1).numpy()
