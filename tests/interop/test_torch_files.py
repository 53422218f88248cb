import sys

import numpy as np
import pytest

from convlstm_jax.errors import UserError
from convlstm_jax.interop import torch_files
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


def cut_short(torch, path):
    torch.save({"w": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


UNREADABLE = "cannot be read as a state dict of PyTorch"
NO_TENSORS = "holds no tensors by name: it must be a state dict"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda torch, path: path.mkdir(), "is not a file: it must be one that torch."),
        (lambda torch, path: path.write_text("no weights"), UNREADABLE),
        (cut_short, UNREADABLE),
        (lambda torch, path: torch.save(torch.nn.Conv2d(1, 1, 1), path), UNREADABLE),
        (lambda torch, path: torch.save([torch.zeros(3)], path), NO_TENSORS),
    ],
)
def test_damaged_and_foreign_files_get_one_sentence(torch, write, message, tmp_path):
    path = tmp_path / "w.pth"
    write(torch, path)
    with pytest.raises(UserError, match=message) as caught:
        read_state_dict(path)
    assert f"'{path}'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_tensors_without_all_of_their_values_are_refused(torch, tmp_path):
    message = r"w.pth' cannot be read: a\.odd must be a dense tensor with its values"
    for odd in (
        torch.zeros(2, device="meta"),
        torch.eye(3).to_sparse(),
        torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8),
        torch.zeros(1).expand(10**12),  # One value on disk.
    ):
        torch.save({"good": torch.eye(3), "a.odd": odd}, tmp_path / "w.pth")
        with pytest.raises(UserError, match=message):
            read_state_dict(tmp_path / "w.pth")


def test_keys_are_without_wrappers(torch, tmp_path):
    keys = ["module.a._orig_mod.w", "_orig_mod.b"]
    torch.save({key: torch.eye(2) for key in keys}, tmp_path / "w.pth")
    assert list(read_state_dict(tmp_path / "w.pth")) == ["a.w", "b"]
    with pytest.raises(UserError, match=r"the state dict has a\.w twice, once as modu"):
        without_wrappers({"a.w": 1, "module.a.w": 2})


def test_an_archive_that_is_unpacked_to_too_much_is_refused(
    torch, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch_files, "MAX_BYTES", 4000)
    torch.save({"w": torch.zeros(1000)}, tmp_path / "w.pth")
    message = r"w\.pth' holds [\d,]+ bytes: it must hold at most 4,000"
    with pytest.raises(UserError, match=message):
        read_state_dict(tmp_path / "w.pth")
