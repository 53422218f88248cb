import json
import re

import h5py
import numpy as np
import pytest

from convlstm_jax.errors import UserError
from convlstm_jax.interop.keras_weights import import_keras
from tests.interop.keras_layout import (
    config_of,
    layers_of,
    write_keras,
    write_legacy,
    write_weights,
)
from tests.interop.keras_networks import NEXT_FRAME, SQUARES, predictor, shapes

LAYERS = layers_of(NEXT_FRAME)
MODEL = predictor(NEXT_FRAME)


def refusal(path, model=MODEL):
    with pytest.raises(UserError) as caught:
        import_keras(path, model, shapes(model))
    message = str(caught.value)
    assert message.startswith(f"'{path}' ")
    assert "\n" not in message
    return message


def settings(config, kind):
    return next(
        layer["config"]
        for layer in config["config"]["layers"]
        if layer["class_name"] == kind
    )


def test_every_array_goes_to_its_place(tmp_path):
    path = tmp_path / "model.weights.h5"
    write_weights(path, LAYERS)
    variables, report = import_keras(path, MODEL, shapes(MODEL))
    convlstm = [weights for kind, weights in LAYERS if kind == "ConvLSTM2D"]
    norms = [weights for kind, weights in LAYERS if kind == "BatchNormalization"]
    params = {
        f"layer_{i}": {
            "input_kernel": weights["kernel"],
            "recurrent_kernel": weights["recurrent_kernel"],
            "bias": weights["bias"],
        }
        for i, weights in enumerate(convlstm)
    } | {
        f"normalization_{i}": {"scale": weights["gamma"], "bias": weights["beta"]}
        for i, weights in enumerate(norms)
    }
    params["head"] = LAYERS[-1][1]
    stats = {
        f"normalization_{i}": {
            "mean": weights["moving_mean"],
            "var": weights["moving_variance"],
        }
        for i, weights in enumerate(norms)
    }
    np.testing.assert_equal(variables, {"params": params, "batch_stats": stats})
    assert (
        "layers/conv_lstm2d_1/cell/vars/2",
        "params/layer_1/bias",
    ) in report.placed
    (note,) = report.notes
    assert "these settings are assumed: activation 'relu', plain sigmoid gates" in note


@pytest.mark.parametrize(
    ("kind", "setting", "value", "usual"),
    [
        ("ConvLSTM2D", "activation", "tanh", "'relu'"),
        ("ConvLSTM2D", "recurrent_activation", "hard_sigmoid", "'sigmoid'"),
        ("ConvLSTM2D", "strides", [2, 2], "[1, 1]"),
        ("ConvLSTM2D", "padding", "valid", "'same'"),
        ("ConvLSTM2D", "data_format", "channels_first", "'channels_last'"),
        ("ConvLSTM2D", "dilation_rate", [1, 2], "[1, 1]"),
        ("ConvLSTM2D", "use_bias", False, "True"),
        ("ConvLSTM2D", "dropout", 0.2, "0.0"),
        ("ConvLSTM2D", "recurrent_dropout", 0.2, "0.0"),
        ("ConvLSTM2D", "return_sequences", False, "True"),
        ("ConvLSTM2D", "return_state", True, "False"),
        ("ConvLSTM2D", "go_backwards", True, "False"),
        ("ConvLSTM2D", "stateful", True, "False"),
        ("BatchNormalization", "axis", 1, "-1"),
        ("BatchNormalization", "momentum", 0.9, "0.99"),
        ("BatchNormalization", "epsilon", 1e-5, "0.001"),
        ("BatchNormalization", "center", False, "True"),
        ("BatchNormalization", "scale", False, "True"),
        ("BatchNormalization", "renorm", True, "False"),
        ("Conv3D", "activation", "linear", "'sigmoid'"),
        ("Conv3D", "strides", [1, 2, 2], "[1, 1, 1]"),
        ("Conv3D", "padding", "valid", "'same'"),
        ("Conv3D", "data_format", "channels_first", "'channels_last'"),
        ("Conv3D", "dilation_rate", [2, 1, 1], "[1, 1, 1]"),
        ("Conv3D", "groups", 2, "1"),
        ("Conv3D", "use_bias", False, "True"),
    ],
)
def test_settings_that_compute_something_else_are_refused(
    kind, setting, value, usual, tmp_path
):
    config = config_of(LAYERS, NEXT_FRAME)
    settings(config, kind)[setting] = value
    write_keras(tmp_path / "model.keras", LAYERS, config)
    name = settings(config, kind)["name"]
    expected = f"{name} has {setting}={value!r}, where only {usual} is possible"
    assert refusal(tmp_path / "model.keras").endswith(f"imported: {expected}")


def test_all_settings_and_other_layers_are_told_at_once(tmp_path):
    config = config_of(LAYERS, NEXT_FRAME)
    settings(config, "ConvLSTM2D")["recurrent_activation"] = "hard_sigmoid"
    settings(config, "Conv3D")["padding"] = "valid"
    config["config"]["layers"][-2]["class_name"] = "Dropout"
    write_legacy(tmp_path / "model.h5", LAYERS, config)
    message = refusal(tmp_path / "model.h5", predictor(NEXT_FRAME, causal_head=True))
    for words in (
        "model.causal_head is True, where it must be False",
        "recurrent_activation='hard_sigmoid'",
        "padding='valid'",
        "its layers are ConvLSTM2D, BatchNormalization, ConvLSTM2D, "
        "BatchNormalization, Dropout, Conv3D, where the model of the config has "
        "ConvLSTM2D, BatchNormalization, ConvLSTM2D, BatchNormalization, ConvLSTM2D, "
        "Conv3D",
    ):
        assert words in message


@pytest.mark.parametrize("form", ["Keras 3", "Keras 2"])
def test_a_network_that_is_no_chain_is_refused(form, tmp_path):
    config = config_of(LAYERS, NEXT_FRAME)
    reads = ["conv_lstm2d", "batch_normalization"]
    node = {"args": [[{"keras_history": [name, 0, 0]} for name in reads]]}
    if form == "Keras 2":
        node = [[name, 0, 0, {}] for name in reads]
    config["config"]["layers"][3]["inbound_nodes"] = [node]
    write_keras(tmp_path / "model.keras", LAYERS, config)
    assert refusal(tmp_path / "model.keras").endswith(
        "conv_lstm2d_1 reads conv_lstm2d and batch_normalization: it must read only "
        "batch_normalization"
    )


ODD = [None, 3, "text", [], [3], {}, {"a": [1]}]


@pytest.mark.parametrize("odd", ODD)
def test_configurations_of_other_json_get_one_sentence(odd, tmp_path):
    path = tmp_path / "model.keras"
    write_keras(path, LAYERS, odd)
    assert "its configuration lists no layers" in refusal(path)
    for change in (
        lambda layers: layers.insert(2, odd),
        lambda layers: layers[2].update(class_name=odd),
        lambda layers: layers[2].update(config=odd or [1]),
        lambda layers: layers[2].update(inbound_nodes=[{"keras_history": odd}]),
        lambda layers: layers[2]["config"].update(axis=odd, name=odd),
    ):
        config = config_of(LAYERS, NEXT_FRAME)
        change(config["config"]["layers"])
        write_keras(path, LAYERS, config)
        refusal(path)


def test_a_deep_configuration_gets_one_sentence(tmp_path):
    path = tmp_path / "model.keras"
    deep = "[" * 900 + "]" * 900
    config = config_of(LAYERS, NEXT_FRAME)
    config["config"]["layers"][2]["inbound_nodes"] = json.loads(deep)
    write_keras(path, LAYERS, config)
    refusal(path)


def test_the_forms_of_keras_2_are_understood(tmp_path):
    config = config_of(LAYERS, NEXT_FRAME)
    settings(config, "BatchNormalization")["axis"] = [4]
    before = "input_layer"
    for layer in config["config"]["layers"][1:]:
        layer["inbound_nodes"] = [[[before, 0, 0, {}]]]
        before = layer["config"]["name"]
    write_keras(tmp_path / "functional.keras", LAYERS, config)
    assert import_keras(tmp_path / "functional.keras", MODEL, shapes(MODEL))
    entries = [
        {"class_name": layer["class_name"], "config": layer["config"]}
        for layer in config["config"]["layers"][1:]
    ]
    write_keras(tmp_path / "sequential.keras", LAYERS, {"config": entries})
    assert import_keras(tmp_path / "sequential.keras", MODEL, shapes(MODEL))


@pytest.mark.parametrize("config", [{}, {"config": {"layers": 3}}, {"config": ["x"]}])
def test_settings_without_layers_are_refused(config, tmp_path):
    write_keras(tmp_path / "model.keras", LAYERS, config)
    message = refusal(tmp_path / "model.keras")
    assert message.endswith("its configuration lists no layers")


def test_models_that_keras_does_not_have_are_refused(tmp_path):
    write_weights(tmp_path / "w.h5", LAYERS)
    message = refusal(tmp_path / "w.h5", predictor(NEXT_FRAME, peephole="channel"))
    assert "model.peephole is 'channel', where it must be 'none'" in message


def test_a_head_of_one_frame_sees_no_later_one(tmp_path):
    head = {"kernel": LAYERS[-1][1]["kernel"][:1], "bias": LAYERS[-1][1]["bias"]}
    write_weights(tmp_path / "w.h5", [*LAYERS[:-1], ("Conv3D", head)])
    model = predictor(NEXT_FRAME, causal_head=True, head_frames=1)
    assert import_keras(tmp_path / "w.h5", model, shapes(model))


def test_too_many_layers_are_counted(tmp_path):
    write_weights(tmp_path / "w.h5", LAYERS)
    small = predictor(SQUARES._replace(num_normalized_layers=1))
    message = refusal(tmp_path / "w.h5", small)
    assert "it has 3 layers ConvLSTM2D, where model.features has 2" in message
    assert (
        "it has 2 layers BatchNormalization, where model.num_normalized_layers has 1"
    ) in message


def test_layers_of_other_kinds_are_refused(tmp_path):
    write_legacy(tmp_path / "w.h5", LAYERS)
    with h5py.File(tmp_path / "w.h5", "a") as file:
        del file["conv_lstm2d/conv_lstm2d/bias"]
    assert "its layers conv_lstm2d are none of ConvLSTM2D, " in refusal(
        tmp_path / "w.h5"
    )


def test_all_missing_and_misshapen_arrays_are_listed_with_shapes(tmp_path):
    layers = [(kind, dict(weights)) for kind, weights in LAYERS]
    layers[0][1]["kernel"] = np.zeros((5, 5, 1, 12), np.float32)
    layers[0][1]["bias"] = np.full(16, np.nan, np.float32)
    del layers[-1][1]["bias"]
    path = tmp_path / "w.h5"
    write_weights(path, [*layers[:4], layers[-1]])
    message = refusal(path)
    for words in (
        "conv_lstm2d/cell/vars/0 has shape (5, 5, 1, 12), expected (5, 5, 1, 16)",
        "layers/conv_lstm2d/cell/vars/2 has values that are not finite",
        "bias of the Conv3D number 1 is missing, expected with shape (1,)",
        "kernel of the ConvLSTM2D number 3 is missing, expected with shape "
        "(1, 1, 3, 8)",
    ):
        assert words in message
    assert len(re.findall("; ", message)) == 5


def test_variables_of_another_model_are_a_bug_of_the_caller(tmp_path):
    write_weights(tmp_path / "w.h5", LAYERS)
    other = {"params": {"output": np.zeros(3)}}
    with pytest.raises(ValueError, match="'params/output' is no variable of a NextFr"):
        import_keras(tmp_path / "w.h5", MODEL, other)
