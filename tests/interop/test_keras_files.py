import zipfile

import h5py
import numpy as np
import pytest

from convlstm_jax.errors import UserError
from convlstm_jax.interop.keras_files import read
from tests.interop.keras_layout import (
    config_of,
    layers_of,
    write_keras,
    write_legacy,
    write_weights,
)
from tests.interop.keras_networks import NEXT_FRAME

LAYERS = layers_of(NEXT_FRAME)
CONFIG = config_of(LAYERS, NEXT_FRAME)


def write(container, path):
    """Writes `LAYERS`; returns whether the container keeps the settings too."""
    if container == "keras":
        write_keras(path, LAYERS, CONFIG)
    elif container == "weights":
        write_weights(path, LAYERS)
    elif container == "legacy":
        write_legacy(path, LAYERS, CONFIG)
    elif container == "legacy of Keras 2":
        write_legacy(path, LAYERS, CONFIG, ending=":0")
    else:
        write_legacy(path, LAYERS, ending=":0", chunks=3)
    return container not in ("weights", "legacy weights of Keras 2")


@pytest.mark.parametrize(
    "container",
    [
        "keras",
        "weights",
        "legacy",
        "legacy of Keras 2",
        "legacy weights of Keras 2",
    ],
)
def test_every_container_gives_the_layers_in_order(container, tmp_path):
    path = tmp_path / "model"  # No ending: the contents tell.
    has_config = write(container, path)
    file = read(path)
    assert (file.config == CONFIG) is has_config
    assert file.unknown == ()
    for kind in ("ConvLSTM2D", "BatchNormalization", "Conv3D"):
        expected = [weights for other, weights in LAYERS if other == kind]
        found = file.layers[kind]
        assert len(found) == len(expected)
        for arrays, weights in zip(found, expected, strict=True):
            assert set(arrays) == set(weights)
            for name, array in weights.items():
                np.testing.assert_array_equal(arrays[name][1], array)


def test_more_than_ten_layers_are_counted_as_numbers(tmp_path):
    layers = [LAYERS[1]] * 12
    layers = [(kind, {k: v + i for k, v in weights.items()})
              for i, (kind, weights) in enumerate(layers)]  # fmt: skip
    write_weights(tmp_path / "many.h5", layers)
    layers_read = read(tmp_path / "many.h5").layers["BatchNormalization"]
    found = [arrays["beta"][1] for arrays in layers_read]
    np.testing.assert_array_equal(found, [weights["beta"] for _, weights in layers])


def test_what_is_of_no_use_is_named_with_the_reason(tmp_path):
    path = tmp_path / "model.weights.h5"
    write_weights(path, LAYERS)
    with h5py.File(path, "a") as file:
        file["optimizer/vars/0"] = np.int64(3)
        file["layers/conv_lstm2d/seed_generator/vars/0"] = np.zeros(2, np.uint32)
        file["layers/conv_lstm2d/cell/vars/3"] = np.zeros(2)
        file["elsewhere"] = np.zeros(2)
        file["layers/text"] = "no number"
    assert dict(read(path).skipped) == {
        "optimizer/vars/0": "as the optimizer starts afresh",
        "layers/conv_lstm2d/seed_generator/vars/0": "as nothing is drawn by it",
        "layers/conv_lstm2d/cell/vars/3": "as it belongs to no layer",
        "elsewhere": "as it belongs to no layer",
    }


def test_layers_of_other_kinds_are_named(tmp_path):
    write_weights(tmp_path / "model.weights.h5", LAYERS)
    with h5py.File(tmp_path / "model.weights.h5", "a") as file:
        file["layers/dense/vars/0"] = np.zeros((2, 3))
        file["layers/dense/vars/1"] = np.zeros(3)
        file["layers/conv_lstm2d/forward/vars/0"] = np.zeros(3)
    assert read(tmp_path / "model.weights.h5").unknown == ("conv_lstm2d", "dense")
    write_legacy(tmp_path / "model.h5", LAYERS)
    with h5py.File(tmp_path / "model.h5", "a") as file:
        del file["conv3d/conv3d/bias"]
    assert read(tmp_path / "model.h5").unknown == ("conv3d",)


def damaged(kind, path):
    if kind == "a text":
        path.write_text("no weights")
    elif kind == "a folder":
        path.mkdir()
    elif kind == "HDF5 cut short":
        write_weights(path, LAYERS)
        path.write_bytes(path.read_bytes()[:4000])
    elif kind == "an archive cut short":
        write_keras(path, LAYERS, CONFIG)
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "an archive with altered bytes":
        write_keras(path, LAYERS, CONFIG)
        content = bytearray(path.read_bytes())
        content[200] ^= 0xFF
        path.write_bytes(content)
    elif kind == "an archive of something else":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("other.txt", "x")
    elif kind == "an archive without JSON":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{")
    else:
        with h5py.File(path, "w") as file:
            file["data"] = np.zeros(3)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("a folder", "is not a file"),
        ("a text", "cannot be read as a file of Keras"),
        ("HDF5 cut short", "cannot be read as a file of Keras"),
        ("an archive cut short", "cannot be read as a file of Keras"),
        ("an archive with altered bytes", "cannot be read as a file of Keras"),
        ("an archive of something else", "cannot be read as a file of Keras"),
        ("an archive without JSON", "cannot be read as a file of Keras"),
        ("HDF5 of something else", "is an HDF5 file, but holds no layers of Keras"),
    ],
)
def test_damaged_and_foreign_files_get_one_sentence(kind, message, tmp_path):
    path = tmp_path / "weights"
    damaged(kind, path)
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert f"'{path}'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_gets_one_sentence(tmp_path):
    with pytest.raises(
        UserError, match=r"'.*gone' is not a file: it must be a \.keras"
    ):
        read(tmp_path / "gone")
