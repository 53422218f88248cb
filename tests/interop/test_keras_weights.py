import itertools
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
    params, stats = {"head": LAYERS[-1][1]}, {}
    for i, (_, weights) in enumerate(LAYERS[:-1:2]):
        ours = {"input_kernel": weights["kernel"]} | weights
        del ours["kernel"]
        params[f"layer_{i}"] = ours
    for i, (_, weights) in enumerate(LAYERS[1:-1:2]):
        gamma, beta, mean, variance = weights.values()
        params[f"normalization_{i}"] = {"scale": gamma, "bias": beta}
        stats[f"normalization_{i}"] = {"mean": mean, "var": variance}
    np.testing.assert_equal(variables, {"params": params, "batch_stats": stats})
    placed = ("layers/conv_lstm2d_1/cell/vars/2", "params/layer_1/bias")
    assert placed in report.placed
    (note,) = report.notes
    assert "these settings are assumed: activation 'relu', plain sigmoid gates" in note
    assert "padding 'same', strides and dilation 1, forwards in time" in note


@pytest.mark.parametrize(
    ("kind", "setting", "value", "usual"),
    [
        ("ConvLSTM2D", "recurrent_activation", "hard_sigmoid", "sigmoid"),
        ("ConvLSTM2D", "strides", [2, 2], [1, 1]),
        ("ConvLSTM2D", "go_backwards", True, False),
        ("BatchNormalization", "axis", 1, -1),
        ("BatchNormalization", "epsilon", 1e-5, 0.001),
        ("Conv3D", "activation", "linear", "sigmoid"),
        ("Conv3D", "padding", "valid", "same"),
    ],
)
def test_settings_that_compute_something_else_are_refused(
    kind, setting, value, usual, tmp_path
):
    config = config_of(LAYERS, NEXT_FRAME)
    changed = settings(config, kind)
    changed[setting] = value
    write_keras(tmp_path / "model.keras", LAYERS, config)
    assert refusal(tmp_path / "model.keras").endswith(
        f": {changed['name']} has {setting}={value!r}, where only {usual!r} is possible"
    )


@pytest.mark.parametrize(
    ("kind", "setting", "value", "field"),
    [
        ("ConvLSTM2D", "activation", "tanh", "activation is 'relu'"),
        ("BatchNormalization", "momentum", 0.9, "batch_norm_momentum is 0.99"),
    ],
)
def test_settings_that_the_model_must_share(kind, setting, value, field, tmp_path):
    config = config_of(LAYERS, NEXT_FRAME)
    for layer in config["config"]["layers"]:
        if layer["class_name"] == kind:
            layer["config"][setting] = value
    write_keras(tmp_path / "model.keras", LAYERS, config)
    message = f" has {setting}={value!r}, where model.{field}"
    assert message in refusal(tmp_path / "model.keras")
    name = field.partition(" ")[0]
    model = MODEL.clone(**{name: value})
    assert import_keras(tmp_path / "model.keras", model, shapes(model))


def test_dropout_changes_no_prediction_and_is_told(tmp_path):
    config = config_of(LAYERS, NEXT_FRAME)
    layers = config["config"]["layers"]
    plain = import_keras_config(tmp_path, config)
    layers[1]["config"]["recurrent_dropout"] = 0.3
    dropout = {"class_name": "SpatialDropout3D", "config": {"name": "drop", "rate": 1}}
    layers.insert(-1, dropout | {"inbound_nodes": layers[-1]["inbound_nodes"]})
    history = {"config": {"keras_history": ["drop", 0, 0]}}
    layers[-1]["inbound_nodes"] = [{"args": [history], "kwargs": {}}]
    variables, report = import_keras_config(tmp_path, config)
    np.testing.assert_equal(variables, plain.variables)
    (note,) = report.notes
    named = f"{layers[1]['config']['name']}, drop is left out: predictions are the same"
    assert f"the dropout of {named}" in note


def import_keras_config(folder, config):
    write_keras(folder / "model.keras", LAYERS, config)
    return import_keras(folder / "model.keras", MODEL, shapes(MODEL))


def test_all_settings_and_other_layers_are_told_at_once(tmp_path):
    config = config_of(LAYERS, NEXT_FRAME)
    settings(config, "Conv3D")["padding"] = "valid"
    config["config"]["layers"][-2]["class_name"] = "Flatten"
    write_legacy(tmp_path / "model.h5", LAYERS, config)
    message = refusal(tmp_path / "model.h5", predictor(NEXT_FRAME, causal_head=True))
    for words in (
        "model.causal_head is True, where it must be False",
        "padding='valid'",
        "BatchNormalization, Flatten, Conv3D, where the model of the config has "
        "ConvLSTM2D, BatchNormalization, ConvLSTM2D, BatchNormalization, ConvLSTM2D, ",
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


@pytest.mark.parametrize("odd", [None, "text", {}, {"a": [1]}])
def test_configurations_of_other_json_get_one_sentence(odd, tmp_path):
    path = tmp_path / "model.keras"
    for config in (odd, {"config": odd}, {"config": {"layers": odd or [3]}}):
        write_keras(path, LAYERS, config)
        assert "its configuration lists no layers" in refusal(path)
    for change in (
        lambda layers: layers.insert(2, odd),
        lambda layers: layers[2].update(class_name=odd),
        lambda layers: layers[2]["config"].update(axis=odd, name=odd),
    ):
        config = config_of(LAYERS, NEXT_FRAME)
        change(config["config"]["layers"])
        write_keras(path, LAYERS, config)
        refusal(path)


def test_the_forms_of_keras_2_are_understood(tmp_path):
    config = config_of(LAYERS, NEXT_FRAME)
    settings(config, "BatchNormalization")["axis"] = [4]
    layers = config["config"]["layers"]
    for before, layer in itertools.pairwise(layers):
        layer["inbound_nodes"] = [[[before["config"]["name"], 0, 0, {}]]]
    write_keras(tmp_path / "functional.keras", LAYERS, config)
    assert import_keras(tmp_path / "functional.keras", MODEL, shapes(MODEL))
    for layer in layers[1:]:
        del layer["inbound_nodes"]
    write_keras(tmp_path / "sequential.keras", LAYERS, {"config": layers[1:]})
    assert import_keras(tmp_path / "sequential.keras", MODEL, shapes(MODEL))


def test_models_and_layers_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "w.h5"
    write_legacy(path, LAYERS)
    small = SQUARES._replace(num_normalized_layers=1)
    message = refusal(path, predictor(small, peephole="channel"))
    for words in (
        "model.peephole is 'channel', where it must be 'none'",
        "it has 3 layers ConvLSTM2D, where model.features has 2",
        "it has 2 layers BatchNormalization, where model.num_normalized_layers has 1",
    ):
        assert words in message
    with h5py.File(path, "a") as file:
        del file["conv_lstm2d/conv_lstm2d/bias"]
    assert "its layers conv_lstm2d are none of ConvLSTM2D, " in refusal(path)


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
