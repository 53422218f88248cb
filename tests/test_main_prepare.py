"""Own data through the command line: inspect, prepare, train, predict."""

import numpy as np
import pytest

from convlstm_jax.cli import build, workdir
from convlstm_jax.cli.entry import load_experiment
from convlstm_jax.cli.flags import parse
from convlstm_jax.viz.clip_writer import write_clip
from tests.annotated_films import write_annotated_films
from tests.composites import write_composites
from tests.program import run

FILMS = [
    "--config=configs/moving_mnist.py:quick", "--config.task.num_input_frames=3",
    "--config.task.num_output_frames=2", "--config.data.height=16",
    "--config.data.width=24", r"--config.data.condition=(flow\d)",
    "--config.data.split_by=condition",
]  # fmt: skip
CLIPS = [
    "--config=configs/clip_classification.py:quick",
    "--config.task.num_input_frames=4", "--config.data.height=32",
    "--config.data.width=40",
]  # fmt: skip
RADAR = [
    "--config=configs/radar_nowcasting.py:quick", "--config.task.num_input_frames=2",
    "--config.task.num_output_frames=3", "--config.data.height=8",
    "--config.data.width=12", "--config.data.downsample=2",
    "--config.data.test_conditions=2017-05-09", "--config.eval.rain_thresholds=0.5,5",
]  # fmt: skip
pytestmark = pytest.mark.usefixtures("at_root")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Eight short videos of squares that move."""
    folder = tmp_path_factory.mktemp("own") / "films"
    for number in range(8):
        film = np.zeros((24, 32, 48, 1), np.float32)
        for time_step in range(24):
            row, column = (number + time_step) % 24, (3 * number + 2 * time_step) % 40
            film[time_step, row : row + 8, column : column + 8] = 1 - number / 16
        write_clip(folder / f"flow{number % 4}_take{number}.mp4", film)
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return write_annotated_films(tmp_path_factory.mktemp("own") / "shop")


@pytest.fixture(scope="module")
def radar(tmp_path_factory):
    """Composites of two days."""
    folder = tmp_path_factory.mktemp("own") / "radar"
    for start, count in (("201609281445", 22), ("201705091045", 9)):
        write_composites(folder, start, count, size=(26, 40))
    return folder


@pytest.fixture(params=["films", "shop", "radar"])
def own(request):
    """A folder, the config that suits it, and how its content is counted."""
    config, counted = {
        "films": (FILMS, "192 frames of 8 videos"),
        "shop": (CLIPS, "192 frames of 8 annotated videos"),
        "radar": (RADAR, "31 radar composites"),
    }[request.param]
    return request.getfixturevalue(request.param), config, counted


def sources_of(config, path, *more):
    command = parse([*config, f"--config.data.path={path}", *more])
    return build.build_sources(load_experiment(command))


def assert_same_clips(one, other):
    for split in ("train", "validation", "test"):
        first, second = getattr(one, split), getattr(other, split)
        assert len(first) == len(second) > 0
        for index in range(len(first)):
            assert first[index].keys() == second[index].keys()
            for key, values in first[index].items():
                np.testing.assert_array_equal(values, second[index][key])


def test_prepare(own, tmp_path, capsys):
    folder, config, counted = own
    out = tmp_path / "prepared"
    prepare = ["--mode=prepare", *config, f"--config.data.path={folder}"]
    assert run(*prepare, f"--output={out}") == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{out}: {counted}")
    found, expected = sources_of(config, out), sources_of(config, folder)
    assert_same_clips(found, expected)
    assert printed.out.splitlines()[-1] == found.description
    assert found.description.replace(str(out), str(folder)) == expected.description
    assert run(*prepare, f"--output={out}") == 0  # Nothing to do, and said as before.
    assert capsys.readouterr().out == printed.out
    again = ["--mode=prepare", *config, f"--config.data.path={out}"]
    assert run(*again, f"--output={tmp_path / 'two'}") == 2
    assert "which is a prepared folder already" in capsys.readouterr().err


def test_frames_to_predict_from_have_the_stride_of_training(films, tmp_path):
    film = np.random.default_rng(0).integers(0, 256, (12, 16, 24, 1), np.uint8)
    np.save(tmp_path / "film.npy", film)
    flags = [*FILMS, f"--config.data.path={films}", "--config.data.frame_stride=4"]
    data = load_experiment(parse(flags)).data
    read = data.read_input(str(tmp_path / "film.npy"), 3)
    np.testing.assert_array_equal(read.frames, film[3::4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "config.data.name is 'moving_mnist': --mode=prepare needs config.data.pa"),
        (["--config.data.path={films}", "--output={films}/out"], "/out lies in config"),
        (["--config.data.path={films}", "--output={here}/file"], "file cannot be made"),
        (
            ["--config.data.path={films}", "--config.data.num_train_sequences=0"],
            "config.data.num_train_sequences is 0",
        ),
    ],
)
def test_mistakes_are_told_in_one_sentence(films, tmp_path, capsys, arguments, message):
    (tmp_path / "file").write_text("")
    places = {"films": films, "here": tmp_path}
    more = [argument.format(**places) for argument in arguments]
    config = [argument for argument in FILMS if more or "condition" not in argument]
    config = [*config, "--config.data.height=32", "--config.data.width=40"]
    assert run("--mode=prepare", *config, f"--output={tmp_path / 'out'}", *more) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message.format(**places) in error


def test_two_works_on_one_folder(films, tmp_path, capsys):
    prepare = ["--mode=prepare", *FILMS, f"--config.data.path={films}"]
    with workdir.locked(tmp_path):
        assert run(*prepare, f"--output={tmp_path}") == 2
    error = capsys.readouterr().err
    assert f"another --mode=prepare is running in --output={tmp_path}: wait" in error
