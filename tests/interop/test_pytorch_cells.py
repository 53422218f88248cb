import jax
import numpy as np
import pytest

from convlstm_jax.errors import UserError
from convlstm_jax.interop.pytorch_cells import convlstm_layers
from convlstm_jax.layers.convlstm import ConvLSTM
from tests.ops import oracle


def state_dict(*, channels=3, features=(4, 2), bias=True, prefix=""):
    generator = np.random.default_rng(0)
    arrays = {}
    for index, outputs in enumerate(features):
        shape = (4 * outputs, channels + outputs, 3, 3)
        key = f"{prefix}cell_list.{index}.conv"
        arrays[f"{key}.weight"] = 0.3 * generator.normal(size=shape)
        if bias:
            arrays[f"{key}.bias"] = generator.normal(size=4 * outputs)
        channels = outputs
    return arrays


def run(stack, clip):
    hidden = clip
    for layer in stack.layers:
        _, hidden = ConvLSTM(layer.cell()).apply(layer.variables(), hidden)
    return hidden


def stack_module(torch, channels, features, gate_order, bias):
    """The usual cells: one convolution over cat([x, h]), cut into gates in an order."""
    nn = torch.nn

    class Cell(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.conv = nn.Conv2d(
                inputs + outputs, 4 * outputs, 3, padding=1, bias=bias
            )

        def forward(self, frame, hidden, cell_state):
            parts = self.conv(torch.cat([frame, hidden], dim=1)).chunk(4, dim=1)
            gates = dict(zip(gate_order, parts, strict=True))
            i, f, o = (torch.sigmoid(gates[gate]) for gate in "ifo")
            cell_state = f * cell_state + i * torch.tanh(gates["g"])
            return o * torch.tanh(cell_state), cell_state

    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            sizes = [channels, *features]
            self.cell_list = nn.ModuleList(
                Cell(sizes[i], sizes[i + 1]) for i in range(len(features))
            )

        def forward(self, clip):
            batch, _, _, height, width = clip.shape
            for cell, outputs in zip(self.cell_list, features, strict=True):
                hidden = cell_state = torch.zeros(batch, outputs, height, width)
                frames = []
                for frame in clip.unbind(dim=1):
                    hidden, cell_state = cell(frame, hidden, cell_state)
                    frames.append(hidden)
                clip = torch.stack(frames, dim=1)
            return clip

    stack = Stack()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return stack


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gate_order", ["ifog", "ifgo", "gofi"])
def test_a_stack_computes_what_its_cells_do(gate_order, bias):
    """Against the oracle, gate by gate, so that no PyTorch is needed."""
    arrays = state_dict(bias=bias)
    stack = convlstm_layers(arrays, gate_order=gate_order)
    clip = np.random.default_rng(1).normal(size=(1, 3, 4, 5, 3))
    hidden = clip[0]
    for index, features in enumerate((4, 2)):
        kernel = arrays[f"cell_list.{index}.conv.weight"].transpose(2, 3, 1, 0)
        order = np.concatenate(
            [np.arange(features) + features * gate_order.index(gate)
             for gate in oracle.GATES]
        )  # fmt: skip
        kernel = kernel[..., order]
        layer = oracle.Layer(
            kernel[:, :, :-features],
            kernel[:, :, -features:],
            arrays[f"cell_list.{index}.conv.bias"][order] if bias else None,
            None,
        )
        zeros = np.zeros((1, 4, 5, features))
        _, hidden = oracle.sequence(layer, hidden[None], (zeros, zeros), 3, "tanh")
        hidden = hidden[0]
    np.testing.assert_allclose(run(stack, np.float32(clip))[0], hidden, atol=1e-5)


def test_the_report_tells_what_went_where():
    arrays = {
        "net.fc.weight": np.zeros(3),
        **state_dict(features=(4,), prefix="net."),
    }
    report = convlstm_layers(arrays).report
    assert set(report.placed) == {
        ("net.cell_list.0.conv.weight", "layer 0: input_kernel and recurrent_kernel"),
        ("net.cell_list.0.conv.bias", "layer 0: bias"),
    }
    assert report.skipped == (("net.fc.weight", "as it belongs to no ConvLSTM layer"),)


def test_other_names_of_the_convolution():
    arrays = {
        key.replace("cell_list.0.conv", "cell0.gates").replace(
            "cell_list.1.conv", "cell1.gates"
        ): value
        for key, value in state_dict().items()
    }
    assert len(convlstm_layers(arrays, convolution="cell{}.gates").layers) == 2


def test_fields_of_the_cell_can_be_added():
    (layer,) = convlstm_layers(state_dict(features=(4,))).layers
    cell = layer.cell(activation="relu")
    assert (cell.activation, cell.features, cell.peephole) == ("relu", 4, "none")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gate_order": "ifo"}, "gate_order is 'ifo': it must be a permutation of"),
        ({"gate_order": "ifcg"}, "gate_order is 'ifcg': it must be a permutation of"),
        ({"convolution": "conv"}, r"convolution is 'conv': it must hold '\{\}' once"),
        (
            {"convolution": "layers.{}.conv"},
            r"kernels layers\.\{\}\.conv\.weight .* it has none among \['cell_list\.",
        ),
    ],
)
def test_impossible_arguments_get_one_sentence(fields, message):
    with pytest.raises(UserError, match=message):
        convlstm_layers(state_dict(), **fields)


def altered(key, shape):
    return {**state_dict(), f"cell_list.{key}": np.zeros(shape)}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            altered("0.conv.weight", (16, 7, 3)),
            r"has shape \(16, 7, 3\): it must be .*the kernel of",
        ),
        (altered("0.conv.weight", (15, 7, 3, 3)), "the kernel of one convolution"),
        (altered("0.conv.weight", (16, 4, 3, 3)), "the kernel of one convolution"),
        (altered("0.conv.weight", (16, 7, 3, 5)), "the kernel of one convolution"),
        (altered("0.conv.weight", (16, 7, 4, 4)), "the kernel of one convolution"),
        (
            altered("1.conv.weight", (8, 5, 3, 3)),
            "must read 4 channels of the layer be",
        ),
        (altered("0.conv.bias", (8,)), r"has shape \(8,\): it must be \(16,\)"),
        (altered("3.conv.weight", (8, 4, 3, 3)), "numbered from 0 on: it has "),
        (
            {**state_dict(), **state_dict(prefix="decoder.")},
            r"for one stack, .* it has \['cell_list.0.conv.weight', ",
        ),
    ],
)
def test_other_weights_get_one_sentence(arrays, message):
    with pytest.raises(UserError, match=message) as caught:
        convlstm_layers(arrays)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("gate_order", "bias"), [("ifog", True), ("ifgo", False)])
def test_outputs_and_gradients_equal_pytorchs(torch, gate_order, bias):
    theirs = stack_module(torch, 3, (4, 2), gate_order, bias)
    stack = convlstm_layers(theirs.state_dict(), gate_order=gate_order)
    generator = np.random.default_rng(2)
    clip = generator.normal(size=(2, 4, 5, 7, 3)).astype(np.float32)
    direction = generator.normal(size=(2, 4, 5, 7, 2)).astype(np.float32)

    frames = torch.from_numpy(clip.transpose(0, 1, 4, 2, 3)).requires_grad_()
    expected = theirs(frames).permute(0, 1, 3, 4, 2)
    (expected * torch.from_numpy(direction)).sum().backward()

    def loss(layers, clip):
        outputs = run(stack._replace(layers=layers), clip)
        return (outputs * direction).sum(), outputs

    value = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (_, found), (layer_gradients, clip_gradient) = jax.jit(value)(stack.layers, clip)
    np.testing.assert_allclose(found, expected.detach(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        clip_gradient, frames.grad.permute(0, 1, 3, 4, 2), rtol=1e-5, atol=1e-5
    )
    # Their gradients, read the way their weights are.
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    expected_gradients = convlstm_layers(gradients, gate_order=gate_order).layers
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=3e-5),
        layer_gradients,
        expected_gradients,
    )
