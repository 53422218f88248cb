import math

import pytest

from convlstm_jax.metrics.registry import (
    METRICS,
    Metric,
    conventions,
    find_metric,
    format_value,
    in_order,
    register,
    score_name,
    without_repeats,
)


def test_every_convention_is_a_sentence():
    assert len(conventions()) == len(METRICS) - 2  # "loss" and "learning_rate"
    for name, sentence in conventions().items():
        assert sentence.endswith("."), name


def test_a_key_is_registered_once():
    with pytest.raises(ValueError, match="'mse': it must not be registered twice"):
        register(Metric("mse", "again"))


def test_scores_at_rain_rates_belong_to_their_family():
    assert score_name("csi", 0.5) == "csi_0.5_mm_per_h"
    assert score_name("fss", 10.0, 5) == "fss_10_mm_per_h_5_px"
    found = find_metric("fss_10_mm_per_h_5_px")
    assert (found.label, found.direction) == ("FSS at 10 mm/h, 5 pixels", "higher")
    keys = {"csi_10_mm_per_h", "csi_2_mm_per_h", "mse", "pod_1_mm_per_h", "own"}
    assert in_order(keys) == [
        "mse", "csi_2_mm_per_h", "csi_10_mm_per_h", "pod_1_mm_per_h", "own",
    ]  # fmt: skip


def test_repeated_metrics_are_left_out():
    keys = {"mse", "mse_per_pixel", "mae_per_pixel", "cross_entropy_nats", "own"}
    keys |= {"cross_entropy_nats_per_sequence"}
    assert in_order(without_repeats(keys)) == [
        "mse", "cross_entropy_nats", "mae_per_pixel", "own",
    ]  # fmt: skip


def test_names_and_values():
    assert find_metric("mse").axis_label == "MSE (summed over a frame)"
    assert find_metric("own_metric").axis_label == "own metric"
    assert find_metric("own_metric").arrow == ""
    values = [None, math.nan, math.inf, -math.inf, 12345.6, 1234.5, 64.314, 0.9288, 0.0]
    assert [format_value(value) for value in values] == [
        "–", "not a number", "∞", "−∞", "12,346", "1,234.5", "64.31", "0.9288",
        "0.0000",
    ]  # fmt: skip
    assert format_value(-0.00012) == "−1.20e−04"
    assert format_value(1200) == "1,200"
