import sys

import numpy as np
import pytest

from convlstm_jax.errors import UserError
from convlstm_jax.interop.torch_files import read_state_dict, without_wrappers


def test_without_pytorch_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        UserError, match=r"reading '.*w\.pth' needs PyTorch, .*pip inst"
    ):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict"])
def test_a_state_dict_is_found_where_it_lies(torch, key, tmp_path):
    tensors = {
        "a.weight": torch.randn(2, 3),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "steps": torch.tensor(3),
    }
    content = tensors if key is None else {"epoch": 3, key: tensors, "lr": 0.1}
    torch.save(content, tmp_path / "w.pth")
    arrays = read_state_dict(tmp_path / "w.pth")
    assert list(arrays) == list(tensors)
    np.testing.assert_array_equal(arrays["a.weight"], tensors["a.weight"])
    assert arrays["half"].dtype == np.float32
    assert arrays["steps"] == 3


def wrong(kind, path, torch):
    if kind == "a text":
        path.write_text("no weights")
    elif kind == "an empty file":
        path.touch()
    elif kind == "cut short":
        torch.save({"w": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "a whole module":
        torch.save(torch.nn.Conv2d(1, 1, 1), path)
    elif kind == "a list":
        torch.save([torch.zeros(3)], path)
    elif kind == "no tensors":
        torch.save({"epoch": 3}, path)
    else:
        path.mkdir()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("a folder", "is not a file: it must be one that torch.save wrote"),
        ("a text", "cannot be read as a state dict of PyTorch"),
        ("an empty file", "cannot be read as a state dict of PyTorch"),
        ("cut short", "cannot be read as a state dict of PyTorch"),
        ("a whole module", "cannot be read as a state dict of PyTorch"),
        ("a list", "holds no tensors by name: it must be a state dict"),
        ("no tensors", "holds no tensors by name: it must be a state dict"),
    ],
)
def test_damaged_and_foreign_files_get_one_sentence(torch, kind, message, tmp_path):
    path = tmp_path / "w.pth"
    wrong(kind, path, torch)
    with pytest.raises(UserError, match=message) as caught:
        read_state_dict(path)
    print(caught.value)
    assert f"'{path}'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda torch: torch.eye(3).to_sparse(), "sparse"),
        (lambda torch: torch.eye(3).to_sparse_csr(), "sparse"),
        (lambda torch: torch.empty(3, device="meta"), "on the device 'meta'"),
        (lambda torch: torch.zeros(1).expand(10**12), "a view that repeats its values"),
        (
            lambda torch: torch.quantize_per_tensor(torch.eye(3), 1, 0, torch.qint8),
            "quantized",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_without_all_of_their_values_are_refused(
    torch, make, problem, tmp_path
):
    torch.save({"good": torch.eye(3), "a.odd": make(torch)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=rf"w.pth' cannot be read: a\.odd is {problem}"):
        read_state_dict(tmp_path / "w.pth")


def test_keys_are_without_wrappers(torch, tmp_path):
    keys = ["module.a._orig_mod.w", "_orig_mod.b"]
    torch.save({key: torch.eye(2) for key in keys}, tmp_path / "w.pth")
    assert list(read_state_dict(tmp_path / "w.pth")) == ["a.w", "b"]
    with pytest.raises(UserError, match=r"the state dict has a\.w twice, once as modu"):
        without_wrappers({"a.w": 1, "module.a.w": 2})
