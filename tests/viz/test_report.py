"""The report: holds everything, loads nothing, escapes all."""

import base64
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.errors import UserError
from convlstm_jax.viz.gif import gif_bytes
from convlstm_jax.viz.report import flatten, write_report

RESULTS = {
    "model": {"mse": 64.3141, "ssim": 0.8123, "cross_entropy_nats": 301.25},
    "copy_last": {"mse": 286.125, "ssim": 0.61, "cross_entropy_nats": math.inf},
    "zeros": {"mse": 173.0, "ssim": math.nan, "cross_entropy_nats": None},
    "num_sequences": 1000,
    "conventions": {"mse": "summed over the pixels of a frame"},
    "per_lead_time": {
        "model": {"mse": [17.125, 18.25]},
        "copy_last": {"mse": [111.5, math.inf]},
    },
    "per_condition": {
        "slow & low": {"count": 3, "model": {"mse": 51.5}, "zeros": {"mse": 90.25}},
        "fast": {"count": 7, "model": {"mse": 77.75}, "zeros": {"mse": None}},
    },
}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags are closed."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.attributes, self.tags, self.texts, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *item) for item in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)


def report(tmp_path, **changes):
    arguments = {
        "title": "Moving MNIST",
        "config": {"seed": 0, "model": {"features": (128, 64, 64), "name": "x"}},
        "data_description": "10 test sequences of embedded digits",
        "results": RESULTS,
    }
    path = tmp_path / "report.html"
    write_report(path, **{**arguments, **changes})
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    return text, page


def test_all_figures_are_there(tmp_path):
    _, page = report(tmp_path)
    for expected in (
        "Moving MNIST",
        "10 test sequences of embedded digits",
        "64.31",
        "286.1",
        "173.0",
        "0.8123",
        "301.2",
        "∞",
        "not a number",
        "17.12",
        "111.5",
        "copy last frame",
        "all zeros",
        "model.features",
        "[128, 64, 64]",
        "num_sequences",
        "conventions.mse",
        "summed over the pixels of a frame",
        "slow & low",
        "51.50",
        "77.75",
    ):
        assert expected in page.text, expected


def test_classes_have_a_table(tmp_path):
    figures = {"precision": None, "recall": 0.25, "support": 1200}
    results = {"model": {"accuracy": 0.5, "per_class": {"a < b": figures}}}
    text, page = report(tmp_path, results=results)
    assert "a &lt; b</th><td>–</td><td>0.2500</td><td>1,200</td>" in text
    assert "per_class" not in page.text


def test_the_model_is_compared_with_the_best_baseline(tmp_path):
    text, _ = report(tmp_path)
    assert "better than</span> all zeros (173.0)" in text
    assert "better than</span> copy last frame (0.6100)" in text
    results = {"model": {"mse": 3.0}, "zeros": {"mse": 2.0}, "copy_last": {"mse": 9.0}}
    text, _ = report(tmp_path, results=results)
    assert "worse than</span> all zeros (2.0000)" in text
    text, _ = report(tmp_path, results={"model": {"mse": 2.0}, "zeros": {"mse": 2.0}})
    assert "equal to</span> all zeros (2.0000)" in text
    # What else the model gives out is no rival of it.
    results = {"model": {"mse": 3.0}, "reconstruction": {"mse": 1.0}}
    text, page = report(tmp_path, results=results)
    assert "reconstruction of the inputs" in page.text
    assert "worse than" not in text


def test_pictures_are_inside(tmp_path):
    gif, png = tmp_path / "a.gif", tmp_path / "b.png"
    gif.write_bytes(gif_bytes(np.zeros((2, 4, 4))))
    Image.new("L", (3, 3)).save(png)
    pictures = [("A forecast", gif), ("Curves", str(png))]
    _, page = report(tmp_path, pictures=pictures)
    sources = [value for tag, name, value in page.attributes if name == "src"]
    assert [source.split(",")[0] for source in sources] == [
        "data:image/gif;base64",
        "data:image/png;base64",
    ]
    for source, (_, path) in zip(sources, [("", gif), ("", png)], strict=True):
        assert base64.b64decode(source.split(",")[1]) == path.read_bytes()
    assert "A forecast" in page.text


def test_nothing_is_loaded(tmp_path):
    png = tmp_path / "b.png"
    Image.new("L", (3, 3)).save(png)
    text, page = report(tmp_path, pictures=[("picture", png)])
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<script|<link", text)
    for tag, name, value in page.attributes:
        assert name not in ("href", "srcset", "onclick", "onload"), (tag, name)
        assert name != "src" or value.startswith("data:image/")
    assert (
        "meta",
        "content",
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    ) in page.attributes


def test_everything_is_escaped(tmp_path):
    bad = '<script>alert("1")</script>&\'"'
    png = tmp_path / "b.png"
    Image.new("L", (3, 3)).save(png)
    text, page = report(
        tmp_path,
        title=bad,
        config={bad: bad, "nested": {bad: [bad]}},
        data_description=bad,
        results={
            "model": {bad: 1.0, "mse": 2.0},
            bad: {bad: 2.0},
            "fact": bad,
            "per_lead_time": {bad: {bad: [1.0]}},
            "per_condition": {bad: {"count": 1, bad: {bad: 1.0}}},
        },
        pictures=[(bad, png)],
    )
    assert "<script" not in text
    assert "script" not in page.tags
    assert bad in page.text
    assert ("img", "alt", bad) in page.attributes


def test_a_report_of_nothing_but_a_title(tmp_path):
    _, page = report(tmp_path, results={}, config={})
    assert "table" not in page.tags
    _, page = report(tmp_path, results={"model": {"mse": 1.0}, "per_lead_time": None})
    assert page.tags.count("table") == 2


def test_flatten():
    assert flatten({"a": {"b": {"c": 1}, "d": 2}, "e": 3}) == {
        "a.b.c": 1,
        "a.d": 2,
        "e": 3,
    }


def test_pictures_must_be_there_and_be_pictures(tmp_path):
    with pytest.raises(UserError, match=r"missing.png' cannot be read \(No such file"):
        report(tmp_path, pictures=[("x", tmp_path / "missing.png")])
    with pytest.raises(UserError, match=r"clip.mp4' has the suffix '.mp4'"):
        report(tmp_path, pictures=[("x", tmp_path / "clip.mp4")])
    assert not (tmp_path / "report.html").exists()
