"""README and docs: every command runs as written, every link leads on."""

import functools
import os
import re
import shlex
import subprocess
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from convlstm_jax.cli import config_file, flags
from convlstm_jax.cli.experiment import experiment, leaves
from convlstm_jax.metrics.baselines import missing_packages
from convlstm_jax.viz.clip_writer import write_clip
from tests.annotated_films import write_annotated_films
from tests.composites import write_composites
from tests.interop import keras_layout
from tests.interop.keras_networks import Network
from tests.program import run

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Only their flags and fields are checked.
NOT_RUN = {
    "--watch": "it ends by Ctrl-C; see tests/cli/test_watch.py",
    "--from=openstl": "its files are read with PyTorch",
    "--from=pytorch": "its files are read with PyTorch",
    "--workdir=runs/predrnn": "the run that --from=openstl makes",
    "train.trackers": "needs wandb and mlflow; see tests/training/test_trackers.py",
}
if not all(map(find_spec, ("netCDF4", "pyproj", "rasterio"))):
    for suffix in ("nc", "tif"):
        NOT_RUN[f"--output=nowcast.{suffix}"] = "needs requirements-radar.txt"
# What a training is given besides, where its config has the field.
BUDGET = {
    "train.num_steps": 2, "train.eval_every_steps": 2, "train.batch_size": 2,
    "train.num_validation_sequences": 2, "train.num_pictures": 0,
    "eval.num_sequences": 2, "eval.batch_size": 2, "eval.num_pictures": 0,
    "eval.num_vmaf_sequences": 0, "model.features": 4, "model.kernel_sizes": 3,
    "model.num_normalized_layers": 0, "model.patch_size": 4,
    "data.height": 32, "data.width": 32, "data.digits": "sklearn",
    "data.downsample": 1,
}  # fmt: skip
# A run that a page reads and another page makes: the page, its run, and its name here.
MADE_BY = {
    "export.md": ("index.md", "paper", "paper"),
    "training.md": ("README.md", "films", "synthetic"),
}


def commands(page):
    """The arguments of `main.py` in each command line of a page, as text."""
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            _, program, rest = line.strip().partition("python main.py")
            if program and not line.strip().startswith("#"):
                yield rest.strip()


COMMANDS = {f"{page.name}: {rest}": rest for page in PAGES for rest in commands(page)}
CHECKED = [c for c in COMMANDS if any(part in c for part in NOT_RUN)]


@pytest.mark.parametrize("command", CHECKED)
def test_each_other_command_is_valid(command, tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(COMMANDS[command])
    for argument in arguments:
        if argument.startswith(("--checkpoint=", "--input=")):
            Path(argument.partition("=")[2]).touch()
    parsed = flags.parse(arguments)
    if parsed.config is not None:
        config = config_file.load(parsed.config)
        experiment(config, parsed.overrides, reads_data=False)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Runs a page, once, in a folder that is returned."""

    @functools.cache
    def run_page(name):
        folder = tmp_path_factory.mktemp(name.replace(".", "_"))
        for entry in ("configs", *(path.name for path in ROOT.glob("requirements*"))):
            (folder / entry).symlink_to(ROOT / entry)
        if name in MADE_BY:
            maker, made, link = MADE_BY[name]
            (folder / "runs").mkdir()
            (folder / "runs" / link).symlink_to(run_page(maker) / "runs" / made)
        (page,) = (page for page in PAGES if page.name == name)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            make_inputs(page.read_text())
            run_shell(page.read_text())
        return folder

    return run_page


def make_inputs(text):
    """The files that the commands of a page read, and its code makes or names."""
    for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        if "write_clip(" in example:  # It makes films.
            exec(example, {})
        elif module := re.match(r"# (\w+\.py)\n", example):
            Path(module[1]).write_text(example)
    arguments = " ".join(re.findall(r"python main\.py(.*)", text.replace("\\\n", " ")))
    film = np.random.default_rng(0).random((24, 32, 32, 1))
    if "data.path=films" in arguments and not Path("films").exists():
        Path("films").mkdir()
        for letter in "abcd":
            write_clip(Path("films", f"{letter}.mp4"), film)
    if "data.path=shop" in arguments:
        write_annotated_films(Path("shop"))
    for path in re.findall(r"--input=(\w+\.\w+)", arguments):
        write_clip(Path(path), film)
    if "data.path=radar" in arguments:
        Path("radar").mkdir()
        for day, hour in (("20160928", 14), ("20170509", 10)):
            write_composites(Path("radar", day), f"{day}{hour}00", 48, (132, 136))
        write_composites(Path("radar_knmi"), "201008260000", 48, (132, 136))
    if "model.keras" in arguments:
        network = Network((4,), (3,), 0, "relu")
        layers = keras_layout.layers_of(network)
        config = keras_layout.config_of(layers, network)
        keras_layout.write_keras(Path("model.keras"), layers, config)


def run_shell(text):
    """Runs the commands of a page in a shell, in which `python main.py` is `run`.

    The shell sends each command line through one pipe, and waits for its exit code
    on another.
    """
    from_shell, to_test = os.pipe()
    from_test, to_shell = os.pipe()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    functions = (
        f"python() {{ printf '%q ' \"$@\" >&{to_test}; echo >&{to_test}; "
        f"read -r code <&{from_test}; return $code; }}\n"
        'pip() { [ "$2" != -r ] || test -f "$3"; }\n'
    )
    script = functions + "\n".join(blocks)
    pipes = (to_test, from_test)
    with subprocess.Popen(["bash", "-euc", script], pass_fds=pipes) as shell:
        for pipe in pipes:
            os.close(pipe)
        with os.fdopen(from_shell) as requests, os.fdopen(to_shell, "w") as answers:
            for line in requests:
                assert answer(shlex.split(line)) == 0, line
                print(0, file=answers, flush=True)
    assert shell.returncode == 0


def answer(arguments):
    if arguments[0] != "main.py":
        assert arguments == ["-m", "pytest"]
        return 0
    if any(part in " ".join(arguments) for part in NOT_RUN):
        return 0
    code = run(*arguments[1:], *budget(arguments[1:]))
    for path in re.findall(r"--output=(\S+)", " ".join(arguments)):
        assert Path(path).exists(), path
    return code


def budget(arguments):
    """What is added to a command so that it is quick."""
    command = flags.parse(arguments)
    if command.config is None or command.mode == "describe" or command.help:
        return []
    chosen = experiment(
        config_file.load(command.config), command.overrides, reads_data=False
    )
    fields = leaves(chosen.config)
    trains = command.mode in ("train", "import")
    given = {"data.height", "data.width"} & command.overrides.keys()
    return [
        f"--config.{name}={value}"
        for name, value in BUDGET.items()
        if name in fields and name not in given and (trains or name[:5] == "data.")
    ]


@pytest.mark.parametrize("page", [p.name for p in PAGES if list(commands(p))])
def test_each_command_runs(folder_of, page):
    folder_of(page)


@pytest.mark.skipif(bool(missing_packages()), reason="needs pysteps")
def test_the_script_of_pysteps_runs(folder_of, monkeypatch, capsys):
    monkeypatch.chdir(folder_of("radar.md"))
    text = (ROOT / "docs" / "radar.md").read_text()
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {"__name__": "script"}
    with warnings.catch_warnings(action="ignore"):
        exec(script, names)
    assert names["nowcast"].shape == (1, 6, 128, 128)
    assert names["rates"].shape == (2, 6, 128, 128)
    assert np.isfinite(names["rates"]).all() and names["rates"].max() > 1
    assert "30 min: {'CSI': " in capsys.readouterr().out


def test_there_are_commands_of_every_mode():
    modes = {re.search(r"--mode=(\w+)", line) for line in COMMANDS.values()}
    assert {mode[1] if mode else "train" for mode in modes} == set(flags.MODES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links or page.name in ("api.md", "metrics.md")
    for link in links:
        if link.startswith(("http:", "https:")):
            continue
        file, _, heading = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert heading in {anchor(title) for title in headings}, link


def anchor(title):
    """The anchor of a heading, as GitHub and MkDocs make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_the_readme_is_short():
    words = (ROOT / "README.md").read_text().split()
    assert len(words) <= 900
