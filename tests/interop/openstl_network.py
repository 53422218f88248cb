"""OpenSTL's ConvLSTM in PyTorch: its keys and its arithmetic, written for the tests."""


def build(torch, features, kernel_size, depth, frame_size, *, layer_norm=False):
    """A module with the keys of OpenSTL's `ConvLSTM_Model`, everything in it random.

    `depth` and `frame_size` are the channels and (height, width) of a patched frame.
    """
    nn = torch.nn

    def normalised(inputs, outputs):
        convolution = nn.Conv2d(
            inputs, outputs, kernel_size, padding=kernel_size // 2, bias=False
        )
        norms = [nn.LayerNorm([outputs, *frame_size])] if layer_norm else []
        return nn.Sequential(convolution, *norms)

    class Cell(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.conv_x = normalised(inputs, 4 * outputs)
            self.conv_h = normalised(outputs, 4 * outputs)
            # Neither is ever used.
            self.conv_o = normalised(2 * outputs, outputs)
            self.conv_last = nn.Conv2d(2 * outputs, outputs, 1, bias=False)

        def forward(self, frame, hidden, cell_state):
            i, f, g, o = (self.conv_x(frame) + self.conv_h(hidden)).chunk(4, dim=1)
            kept = torch.sigmoid(f) * cell_state  # Without the forget bias.
            cell_state = kept + torch.sigmoid(i) * torch.tanh(g)
            return torch.sigmoid(o) * torch.tanh(cell_state), cell_state

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            channels = [depth, *features]
            self.cell_list = nn.ModuleList(
                Cell(channels[i], channels[i + 1]) for i in range(len(features))
            )
            self.conv_last = nn.Conv2d(features[-1], depth, 1, bias=False)

        def forward(self, frames, num_steps):
            """Patched frames [B, T, C, H, W], then its own; the next frame per step."""
            batch, num_frames = frames.shape[:2]
            states = [
                2 * (torch.zeros(batch, outputs, *frame_size),) for outputs in features
            ]
            predictions = []
            for step in range(num_steps):
                hidden = frames[:, step] if step < num_frames else predictions[-1]
                for index, cell in enumerate(self.cell_list):
                    states[index] = cell(hidden, *states[index])
                    hidden = states[index][0]
                predictions.append(self.conv_last(hidden))
            return torch.stack(predictions, dim=1)

    model = Model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator))
    return model


def to_patches(video, size):
    """[B, T, H, W, C] to [B, T, size·size·C, H/size, W/size], as OpenSTL orders them.

    Channel (row·size + column)·C + c is channel c of the patch's pixel (row, column).
    """
    batch, frames, height, width, depth = video.shape
    split = (batch, frames, height // size, size, width // size, size, depth)
    patches = video.reshape(split).transpose(0, 1, 3, 5, 6, 2, 4)
    return patches.reshape(batch, frames, -1, height // size, width // size)
