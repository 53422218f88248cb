"""Curves: drawn for any values, from any file of metrics that is one."""

import math

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.errors import UserError
from convlstm_jax.viz.curves import learning_curves, metric_curves, read_metrics


def coloured_pixels(path, colour):
    with Image.open(path) as picture:
        rgb = np.asarray(picture.convert("RGB"))
    return int((rgb == colour).all(axis=-1).sum())


MODEL, BASELINE = (47, 111, 237), (224, 134, 44)


def test_model_and_baselines_are_drawn(tmp_path):
    path = tmp_path / "curves.png"
    names = ["mse", "mae", "ssim", "psnr_db", "cross_entropy_nats"]
    curves = {
        "model": {name: [1.0, 2.0, 3.0] for name in names},
        "copy_last": {name: [2.0, 4.0, 5.0] for name in names},
    }
    metric_curves(path, curves)
    assert coloured_pixels(path, MODEL) > 500
    assert coloured_pixels(path, BASELINE) > 200
    with Image.open(path) as picture:
        assert picture.width > picture.height > 500


def test_values_that_are_not_finite_leave_gaps(tmp_path):
    path = tmp_path / "curves.png"
    metric_curves(
        path,
        {
            "model": {"mse": [1.0, math.nan, 1e4, math.inf], "ssim": [math.nan] * 4},
            "zeros": {"mse": [0.0, -1.0, None, 2.0]},
        },
    )
    assert coloured_pixels(path, MODEL) > 20
    metric_curves(path, {"model": {"mse": [3.0]}})


def test_no_metric_is_refused(tmp_path):
    with pytest.raises(UserError, match="per_lead_time is empty"):
        metric_curves(tmp_path / "curves.png", {"model": {}})


HEADER = "step,split,metric,value\n"


def test_learning_curves(tmp_path):
    lines = [f"{s},train,loss,{1000 / s}\n" for s in range(1, 300)]
    lines += [f"{s},validation,loss,{1200 / s}\n" for s in range(50, 300, 50)]
    lines += ["7,train,loss,nan\n", "8,train,loss,inf\n", "\n"]
    (tmp_path / "metrics.csv").write_text(HEADER + "".join(lines))
    learning_curves(tmp_path / "metrics.csv", tmp_path / "out" / "learning.png")
    assert coloured_pixels(tmp_path / "out" / "learning.png", MODEL) > 50


def test_the_later_value_counts_and_a_broken_last_line_does_not(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(HEADER + "1,train,loss,3\n2,train,loss,2\n1,train,loss,5\n3,tra")
    assert read_metrics(path) == {("loss", "train"): {1: 5.0, 2: 2.0}}


def test_bad_files_of_metrics(tmp_path):
    path = tmp_path / "metrics.csv"
    with pytest.raises(UserError, match=r"metrics.csv' cannot be read \(No such file"):
        read_metrics(path)
    path.write_text("")
    with pytest.raises(UserError, match="has the header ''"):
        read_metrics(path)
    path.write_text("step,loss\n1,2\n")
    with pytest.raises(UserError, match="has the header 'step,loss'"):
        read_metrics(path)
    path.write_text(HEADER)
    with pytest.raises(UserError, match="holds no value"):
        read_metrics(path)
    path.write_text(HEADER + "1,train,loss,3\n2,train,loss\n3,train,loss,1\n")
    with pytest.raises(UserError, match="'2,train,loss' in line 3"):
        read_metrics(path)
