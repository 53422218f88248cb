"""The report: holds everything, loads nothing, escapes all."""

import base64
import hashlib
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.evaluation.report import write_report
from convlstm_jax.evaluation.result import EvaluationResult, WorstClip
from convlstm_jax.metrics.accumulate import MetricSummary
from convlstm_jax.viz import player
from convlstm_jax.viz.gif import gif_bytes
from convlstm_jax.viz.player import ClipName, error_pixels, forecast_clip


def contender(per_lead_time=(), per_condition=(), **total):
    return MetricSummary(
        total,
        dict(per_lead_time),
        per_condition={
            k: MetricSummary({"mse": v}) for k, v in dict(per_condition).items()
        },
    )


def some_result():
    conditions = {"slow & low": 51.5, "fast": 77.75}
    return EvaluationResult(
        {
            "model": contender(
                {"mse": [17.125, 18.25]}, conditions,
                mse=64.3141, ssim=0.8123, cross_entropy_nats=301.25,
            ),
            "copy_last": contender(
                {"mse": [111.5, math.inf]}, conditions,
                mse=286.125, ssim=0.61, cross_entropy_nats=math.inf,
            ),
            "zeros": contender(
                {}, {"slow & low": 90.25, "fast": None},
                mse=173.0, ssim=math.nan, cross_entropy_nats=None,
            ),
        },
        {"slow & low": 1, "fast": 7},
        worst_clips=[WorstClip(ClipName(4, "run_2.avi", "fast"), 99.5)],
        drawn_clips=[ClipName(0, "run_1.avi", "fast")],
        step=1234,
        data={"description": "not twice", "num_sequences": 1000},
    )  # fmt: skip


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags are closed."""

    VOID = frozenset({"meta", "img", "br", "input"})

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


def of_mse(**contenders):
    return EvaluationResult({k: contender(mse=v) for k, v in contenders.items()})


def report(tmp_path, **changes):
    arguments = {
        "title": "Moving MNIST",
        "config": {"seed": 0, "model": {"features": (128, 64, 64), "name": "x"}},
        "data_description": "10 test sequences of embedded digits",
        "result": some_result(),
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
        "Moving MNIST", "10 test sequences of embedded digits", "64.31", "286.1",
        "173.0", "0.8123", "301.2", "∞", "not a number", "17.12", "111.5",
        "copy last frame", "all zeros", "model.features", "[128, 64, 64]", "1 clip",
        "Squared error summed over the pixels and channels of a frame", "7 clips",
        "num_sequences", "run_2.avi", "99.50", "1234", "slow & low", "51.50", "77.75",
    ):  # fmt: skip
        assert expected in page.text, expected
    assert "not twice" not in page.text


def test_classes_have_a_table(tmp_path):
    metrics = {"precision": None, "recall": 0.25, "support": 1200}
    model = MetricSummary({"accuracy": 0.5}, per_class={"a < b": metrics, "c": metrics})
    text, page = report(tmp_path, result=EvaluationResult({"model": model}))
    heads = '<th scope="col">precision</th><th scope="col">recall</th>'
    assert f'{heads}<th scope="col">support</th></tr>' in text
    assert "a &lt; b</th><td>–</td><td>0.2500</td><td>1,200</td>" in text
    assert "per_class" not in page.text


def test_the_model_is_compared_with_the_best_baseline(tmp_path):
    text, _ = report(tmp_path)
    assert "better than</span> all zeros (173.0)" in text
    assert "better than</span> copy last frame (0.6100)" in text
    compared = ((3.0, "worse than"), (2.0, "equal to"), (1.97, "about equal to"))
    for model, words in compared:
        contenders = {"model": model, "zeros": 2.0, "copy_last": 9.0}
        text, _ = report(tmp_path, result=of_mse(**contenders))
        assert f"{words}</span> all zeros (2.0000)" in text
    # What else the model gives out is no rival of it.
    text, page = report(tmp_path, result=of_mse(model=3.0, reconstruction=1.0))
    assert "reconstruction of the inputs" in page.text
    assert "worse than" not in text


@pytest.mark.parametrize(("mean_pixel", "shown"), [(0.05, True), (0.6, False)])
def test_an_all_zeros_forecast_is_shown_where_frames_are_dark(
    tmp_path, mean_pixel, shown
):
    contenders = {
        "model": contender(mse=3.0, mae_per_pixel=0.01),
        "zeros": contender(mse=90.0, mae_per_pixel=mean_pixel),
    }
    result = EvaluationResult(contenders)
    file = tmp_path / "report.html"
    write_report(file, title="t", config={}, data_description="d", result=result)
    assert ("all zeros" in file.read_text()) == shown
    assert list(result.contenders) == ["model", "zeros"]


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
    text, page = report(tmp_path, pictures=[("picture", png)], clips=[clip()])
    text = re.sub(r"base64,[A-Za-z0-9+/=]*", "", text)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<link", text)
    for tag, name, value in page.attributes:
        assert name not in ("href", "srcset", "onclick", "onload"), (tag, name)
        assert name != "src" or value.startswith("data:image/")


def test_the_page_runs_and_follows_nothing_but_its_own_script_and_style(tmp_path):
    for clips in ([], [clip()]):
        text, page = report(tmp_path, clips=clips)
        (policy,) = [
            value
            for tag, name, value in page.attributes
            if tag == "meta" and "default-src" in (value or "")
        ]
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert "unsafe" not in policy
        assert rules["default-src"] == rules["base-uri"] == "'none'"
        for tag, number in (("style", 1), ("script", len(clips))):
            contents = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
            assert len(contents) == number
            for content in contents:
                digest = hashlib.sha256(content.encode()).digest()
                name = f"'sha256-{base64.b64encode(digest).decode()}'"
                assert rules[f"{tag}-src"] == name
        assert clips or rules["script-src"] == "'none'"
        # A style of an element's own would be against the rules.
        assert "style" not in [name for _, name, _ in page.attributes]


def test_everything_is_escaped(tmp_path):
    bad = '<script>alert("1")</script>&\'"'
    png = tmp_path / "b.png"
    Image.new("L", (3, 3)).save(png)
    text, page = report(
        tmp_path,
        title=bad,
        config={bad: bad, "nested": {bad: [bad]}},
        data_description=bad,
        result=EvaluationResult(
            {
                name: MetricSummary(
                    {bad: 1.0, "mse": 2.0},
                    {bad: [1.0]},
                    per_class={bad: {bad: 1.0}},
                    per_condition={bad: MetricSummary({bad: 1.0})},
                )
                for name in ("model", bad)
            },
            {bad: 1},
            worst_clips=[WorstClip(ClipName(0, bad, bad), 1.0)],
            data={bad: bad},
        ),
        pictures=[(bad, png)],
    )
    assert "<script" not in text
    assert "script" not in page.tags
    assert bad in page.text
    assert ("img", "alt", bad) in page.attributes


def test_names_that_are_no_text_are_shown_by_number(tmp_path):
    _, page = report(tmp_path, data_description="films/c\udcff")
    assert "films/c\\udcff" in page.text


def test_a_report_of_nothing_but_a_title(tmp_path):
    _, page = report(tmp_path, result=EvaluationResult({}), config={})
    assert "table" not in page.tags
    # Metrics, their conventions and the configuration.
    _, page = report(tmp_path, result=of_mse(model=1.0))
    assert page.tags.count("table") == 3


def clip(name="Clip 0", size=(5, 6), channels=1, **options):
    generator = np.random.default_rng(8)
    inputs, truth, prediction = (
        generator.random((length, *size, channels)) for length in (2, 3, 3)
    )
    return forecast_clip(name, inputs, truth, prediction, group="Some", **options)


def player_data(page):
    return json.loads(page.text[page.text.index('[{"note"') :].split("\n")[0])


def picture(row):
    content = base64.b64decode(row["picture"].split(",")[1])
    frames = np.asarray(Image.open(io.BytesIO(content)))
    return frames.reshape(row["count"], row["height"], row["width"], -1)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_player_holds_every_frame(tmp_path, channels):
    bad = "</script><i>\"'&"
    clips = [clip(), clip(bad, channels=channels, note=bad)]
    text, page = report(tmp_path, clips=clips)
    assert text.count("</script>") == 2
    assert "<i>" not in text
    assert bad in page.text
    _, data = player_data(page)
    assert data["note"] == bad
    assert data["times"] == ["t−1", "t", "t+1", "t+2", "t+3"]
    generator = np.random.default_rng(8)
    frames = [generator.random((length, 5, 6, channels)) for length in (2, 3, 3)]
    assert [row["first"] for row in data["rows"]] == [0, 2, 2, 2]
    for row, expected in zip(data["rows"], frames, strict=False):
        np.testing.assert_allclose(picture(row), 255 * expected, atol=0.5001)
    error = frames[2] - frames[1]
    np.testing.assert_array_equal(picture(data["rows"][3]), error_pixels(error))
    squares = np.square(error).sum((1, 2, 3))
    assert data["rows"][2]["notes"] == [f"MSE {value:.4g}" for value in squares]


def test_the_player_of_a_reconstruction(tmp_path):
    _, page = report(tmp_path, clips=[clip(reconstruction=True)])
    (data,) = player_data(page)
    assert data["times"] == ["t−1", "t", "t", "t−1", "t−2"]
    assert data["rows"][2]["name"] == "reconstruction"


def test_a_player_of_many_large_frames_shrinks_them(tmp_path, monkeypatch):
    large = clip(size=(96, 130))
    monkeypatch.setattr(player, "_MAX_BYTES", 20_000)
    text, page = report(tmp_path, clips=[large])
    (data,) = player_data(page)
    row = data["rows"][1]
    assert (row["height"], row["width"]) == (32, 43)
    assert "shrunk to 1/3" in text
    blocks = large.rows[1].pixels[:, :96, :129].reshape(3, 32, 3, 43, 3)
    expected = blocks.mean((2, 4))[..., np.newaxis]
    np.testing.assert_allclose(picture(row), expected, atol=0.5001)
