import zipfile

import h5py
import numpy as np
import pytest

from convlstm_jax.errors import UserError
from convlstm_jax.interop import keras_files
from convlstm_jax.interop.keras_files import read, why_unused
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


@pytest.mark.parametrize(
    ("write", "config", "options"),
    [
        (write_keras, [CONFIG], {}),
        (write_weights, [], {}),
        (write_legacy, [CONFIG], {}),
        (write_legacy, [CONFIG], {"ending": ":0"}),  # Keras 2.
        (write_legacy, [], {"ending": ":0", "chunks": 3}),
    ],
)
def test_every_container_gives_the_layers_in_order(write, config, options, tmp_path):
    path = tmp_path / "model"  # No ending: the contents tell.
    write(path, LAYERS, *config, **options)
    file = read(path)
    assert file.config == (config[0] if config else None)
    assert file.unknown == []
    for kind, found in file.layers.items():
        values = [{k: file.arrays[name] for k, name in one.items()} for one in found]
        expected = [weights for other, weights in LAYERS if other == kind]
        np.testing.assert_equal(values, expected)


def test_more_than_ten_layers_are_counted_as_numbers(tmp_path):
    layers = [
        ("Conv3D", {"kernel": np.zeros(i), "bias": np.zeros(1)}) for i in range(12)
    ]
    write_weights(tmp_path / "many.h5", layers)
    file = read(tmp_path / "many.h5")
    sizes = [len(file.arrays[names["kernel"]]) for names in file.layers["Conv3D"]]
    assert sizes == list(range(12))


def test_what_belongs_to_no_known_layer_is_named_or_has_a_reason(tmp_path):
    path = tmp_path / "model.weights.h5"
    write_weights(path, LAYERS)
    known = read(path)
    unused = {
        "optimizer/vars/0": "as the optimizer starts afresh",
        "layers/conv_lstm2d/seed_generator/vars/0": "as no layer has it",
        "layers/conv_lstm2d/cell/vars/3": "as no layer has it",
        "elsewhere": "as no layer has it",
    }
    with h5py.File(path, "a") as file:
        for name in unused:
            file[name] = np.zeros(2)
        file["layers/text"] = "no number"
    found = read(path)
    assert (found.layers, found.unknown) == (known.layers, [])
    assert {name: why_unused(name) for name in found.arrays.keys() - known.arrays} == (
        unused
    )
    with h5py.File(path, "a") as file:
        file["layers/dense/vars/0"] = np.zeros((2, 3))
        file["layers/dense/vars/1"] = np.zeros(3)
        file["layers/conv_lstm2d/forward/vars/0"] = np.zeros(3)
    assert read(path).unknown == ["conv_lstm2d", "dense"]
    write_legacy(tmp_path / "model.h5", LAYERS)
    with h5py.File(tmp_path / "model.h5", "a") as file:
        del file["conv3d/conv3d/bias"]
    assert read(tmp_path / "model.h5").unknown == ["conv3d"]


def write_damaged(kind, path):
    if kind == "a text":
        path.write_text("no weights")
    elif kind == "HDF5 cut short":
        write_weights(path, LAYERS)
        path.write_bytes(path.read_bytes()[:4000])
    elif kind == "an archive with altered bytes":
        write_keras(path, LAYERS, CONFIG)
        content = bytearray(path.read_bytes())
        content[200] ^= 0xFF
        path.write_bytes(content)
    elif kind == "an archive without JSON":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{")
    elif kind == "deep JSON":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "[" * 100_000)
    elif kind == "HDF5 that reads another file":
        np.arange(9.0).tofile(path.with_name("other"))
        with h5py.File(path, "w") as file:
            group = file.create_group("layers/conv3d/vars")
            group.create_dataset(
                "0", (9,), "f8", external=[(str(path.with_name("other")), 0, 72)]
            )
    elif kind == "HDF5 that claims too much":
        with h5py.File(path, "w") as file:
            group = file.create_group("layers/conv3d/vars")
            for number in range(3):
                group.create_dataset(f"{number}", (2**40,), "f8", chunks=(2**10,))
    elif kind == "HDF5 of something else":
        with h5py.File(path, "w") as file:
            file["data"] = np.zeros(3)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"is not a file: it must be a \.keras"),
        ("a text", "cannot be read as a file of Keras"),
        ("HDF5 cut short", "cannot be read as a file of Keras"),
        ("an archive with altered bytes", "cannot be read as a file of Keras"),
        ("an archive without JSON", "cannot be read as a file of Keras"),
        ("deep JSON", "something else: it is nested too deeply"),
        ("HDF5 that reads another file", "vars/0 must lie in the file itself"),
        ("HDF5 that claims too much", "it has 26,388,279,066,624 bytes, more than"),
        ("HDF5 of something else", "is an HDF5 file, but holds no layers of Keras"),
    ],
)
def test_damaged_and_foreign_files_get_one_sentence(kind, message, tmp_path):
    path = tmp_path / "weights"
    write_damaged(kind, path)
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert f"'{path}'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", [100, 5000])
def test_what_is_unpacked_to_too_much_is_refused(limit, tmp_path, monkeypatch):
    monkeypatch.setattr(keras_files, "MAX_BYTES", limit)
    write_keras(tmp_path / "model.keras", LAYERS, CONFIG)
    member = "config.json" if limit == 100 else "model.weights.h5"
    with pytest.raises(UserError, match=rf"{member} has [\d,]+ bytes, more than"):
        read(tmp_path / "model.keras")
