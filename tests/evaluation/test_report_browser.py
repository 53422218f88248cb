"""The report in a real browser: opened from disk, its player used as a reader does.

Needs Chromium and its driver (Debian: `apt-get install chromium chromium-driver`).
"""

import json
import shutil

import numpy as np
import pytest

from convlstm_jax.evaluation.report import write_report
from convlstm_jax.evaluation.result import EvaluationResult
from convlstm_jax.metrics.accumulate import MetricSummary
from convlstm_jax.viz.player import forecast_clip

webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium with chromedriver is installed"
)

INPUTS, OUTPUTS = 3, 4
POSITIONS = INPUTS + OUTPUTS


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--disable-background-networking", "--no-first-run",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
        "--window-size=1180,1000",
    ):  # fmt: skip
        options.add_argument(flag)
    logs = {"browser": "ALL", "performance": "ALL"}
    options.set_capability("goog:loggingPrefs", logs)
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(20)
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, tmp_path):
    browser.get(write(tmp_path).as_uri())
    wait_for_pictures(browser)
    return browser


def films(seed):
    """Frames of distinct values: every one shows in another colour."""
    generator = np.random.default_rng(seed)
    return [
        generator.random((length, 24, 32, 1)) for length in (INPUTS, OUTPUTS, OUTPUTS)
    ]


def write(folder):
    path = folder / "report.html"
    clips = [
        forecast_clip("Test sequence 0", *films(0), group="Test sequences"),
        forecast_clip(
            "Test sequence 7", *films(1), group="Worst by MSE", note="MSE 1 <of a clip>"
        ),
    ]
    write_report(
        path,
        title="A report",
        config={"seed": 3},
        data_description="random films",
        result=EvaluationResult({"model": MetricSummary({"mse": 1234.5})}),
        clips=clips,
    )
    return path


def wait_for_pictures(driver):
    """Waits until the prediction of the chosen clip is drawn, not black."""
    driver.execute_async_script("""
      const done = arguments[0];
      const look = () => {
        const canvas = document.querySelectorAll("#player-panels canvas")[2];
        const pixels = canvas.getContext("2d").getImageData(0, 0, 9, 9).data;
        if (pixels.some((value, place) => place % 4 < 3 && value)) done();
        else setTimeout(look, 20);
      };
      look();
    """)


def shown(driver):
    """The pixels of the four panels `[4][H, W]`, and which of them are dimmed."""
    pixels, away, size = driver.execute_script("""
      const panels = [...document.querySelectorAll("#player-panels figure")];
      const canvases = panels.map((panel) => panel.querySelector("canvas"));
      return [
        canvases.map((c) => Array.from(
          c.getContext("2d").getImageData(0, 0, c.width, c.height).data)),
        panels.map((panel) => panel.classList.contains("away")),
        [canvases[0].height, canvases[0].width],
      ];
    """)
    return [np.reshape(p, (*size, 4))[..., :3] for p in pixels], away


def move(driver, position):
    driver.execute_script(
        """
        const slider = document.getElementById("player-slider");
        slider.value = arguments[0];
        slider.dispatchEvent(new Event("input"));
        """,
        position,
    )


def text(driver, name):
    return driver.find_element("id", f"player-{name}").text


def value(driver, name):
    return int(driver.find_element("id", f"player-{name}").get_property("value"))


def assert_frame(pixels, frame):
    expected = np.repeat(255 * frame, 3, axis=-1)
    np.testing.assert_allclose(pixels, expected, atol=0.5001)


def test_the_slider_chooses_the_frames(opened):
    inputs, truth, prediction = films(0)
    # It opens at the first frame that was predicted.
    assert value(opened, "slider") == INPUTS
    for position in range(POSITIONS):
        move(opened, position)
        pixels, away = shown(opened)
        if position < INPUTS:
            assert_frame(pixels[0], inputs[position])
            assert away == [False, True, True, True]
            # Nothing is known of the future yet.
            assert all((picture == 0).all() for picture in pixels[1:])
        else:
            assert_frame(pixels[0], inputs[-1])
            assert_frame(pixels[1], truth[position - INPUTS])
            assert_frame(pixels[2], prediction[position - INPUTS])
            assert away == [True, False, False, False]
            assert (pixels[3] > 0).any()
    assert text(opened, "time") == "t+4"


def test_arrow_keys_go_frame_by_frame(opened):
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    move(opened, 1)
    page = opened.find_element("tag name", "body")
    page.send_keys(keys.ARROW_RIGHT, keys.ARROW_RIGHT, keys.ARROW_RIGHT)
    assert (value(opened, "slider"), text(opened, "time")) == (4, "t+2")
    assert_frame(shown(opened)[0][1], films(0)[1][1])
    page.send_keys(keys.ARROW_LEFT)
    assert value(opened, "slider") == 3
    slider = opened.find_element("id", "player-slider")
    slider.send_keys(keys.ARROW_RIGHT)
    assert (value(opened, "slider"), text(opened, "time")) == (4, "t+2")


def test_another_clip_can_be_chosen(opened):
    move(opened, INPUTS)
    before = shown(opened)[0][1]
    opened.find_element("css selector", "#player-clip option[value='1']").click()
    wait_for_pictures(opened)
    assert value(opened, "slider") == INPUTS
    after = shown(opened)[0][1]
    assert_frame(after, films(1)[1][0])
    assert (before != after).any()
    assert text(opened, "note") == "MSE 1 <of a clip>"


def test_it_plays_and_pauses(opened):
    move(opened, 0)
    button = opened.find_element("id", "player-play")
    button.click()
    seen = opened.execute_async_script("""
      const done = arguments[0];
      const slider = document.getElementById("player-slider");
      const seen = [slider.value];
      const look = () => {
        if (seen[seen.length - 1] !== slider.value) seen.push(slider.value);
        if (seen.length === 9) done(seen); else setTimeout(look, 10);
      };
      look();
    """)
    # To the end and from the beginning again.
    assert [int(position) for position in seen] == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    button.click()
    stopped = value(opened, "slider")
    opened.execute_async_script("setTimeout(arguments[0], 600)")
    assert value(opened, "slider") == stopped


def test_nothing_goes_wrong_and_nothing_is_asked_for(browser, tmp_path):
    """From opening to the last click: no message, and no request but for the file."""
    for log in ("browser", "performance"):
        browser.get_log(log)  # Of what came before.
    path = write(tmp_path)
    browser.get(path.as_uri())
    wait_for_pictures(browser)
    for position in range(POSITIONS):
        move(browser, position)
    browser.find_element("css selector", "#player-clip option[value='1']").click()
    wait_for_pictures(browser)
    assert browser.get_log("browser") == []
    requests = [
        message["params"]
        for entry in browser.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"]
        == "Network.requestWillBeSent"
    ]
    # The browser's own first page asks for things of its own.
    urls = {
        request["request"]["url"].split(",")[0]
        for request in requests
        if not request["documentURL"].startswith("chrome")
    }
    assert urls == {path.as_uri(), "data:image/png;base64"}


def test_a_foreign_script_does_not_run(browser, tmp_path):
    """The page's policy holds: what did not come with it is not run."""
    path = write(tmp_path)
    page = path.read_text(encoding="utf-8")
    planted = "<script>document.title = 'planted'</script></body>"
    path.write_text(page.replace("</body>", planted), encoding="utf-8")
    browser.get_log("browser")
    browser.get(path.as_uri())
    wait_for_pictures(browser)
    assert browser.title == "A report"
    (message,) = browser.get_log("browser")
    assert "Content Security Policy" in message["message"]
