"""`main` with a recorder in the place of each mode."""

import errno
import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import bubbles, moving_mnist
from convlstm_jax.cli import entry, flags, process, workdir
from convlstm_jax.cli.experiment import update
from convlstm_jax.cli.workdir import load_config
from convlstm_jax.errors import UserError

ROOT = Path(__file__).parents[2]
CONFIG = f"--config={ROOT / 'configs' / 'moving_mnist.py'}:quick"


@pytest.fixture(autouse=True)
def lone_process(monkeypatch, tmp_path):
    """Each test works in a folder of its own and leaves this process as it is."""
    monkeypatch.setattr(process, "set_up", lambda: (0, 1))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def calls(monkeypatch):
    """Puts a recorder in the place of each mode; returns what the modes were given."""
    calls = []

    def recorder(mode, replaced):
        @functools.wraps(replaced)
        def run(experiment, **arguments):
            calls.append((mode, experiment.config, arguments))

        return run

    for mode in flags.MODES:
        module = "import_weights" if mode == "import" else mode
        run = importlib.import_module(f"convlstm_jax.cli.{module}").run
        monkeypatch.setattr(f"convlstm_jax.cli.{module}.run", recorder(mode, run))
    return calls


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "trained"
    (folder / "checkpoints" / "100").mkdir(parents=True)
    workdir.save_config(folder, moving_mnist.get_config())
    return folder


def main(*arguments):
    return entry.main(["main.py", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to do: run `python main.py --config"),
        (["--mdoe=train"], "unknown flag --mdoe (did you mean --mode?)"),
        ([CONFIG.replace("quick", "quik")], "unknown preset 'quik'"),
        ([CONFIG.replace("mnist", "mnits")], "mnits.py' does not exist"),
        ([CONFIG, "--config.model.nam=x"], "config.model.nam is not a field"),
        ([CONFIG, "--config.train.batch_size="], "config.train.batch_size is ''"),
        (["--workdir=gone"], "--workdir=gone does not exist"),
        (["--mode=describe", "--workdir=gone", CONFIG], "--workdir=gone does not"),
        ([CONFIG, "--workdir=/dev/null"], "/dev/null cannot be made (File exists)"),
        (
            [CONFIG, "--output=x", "--scale=2", "--mode=evaluate"],
            "3 things on the command line",
        ),
    ],
)
def test_mistakes_end_with_code_2_and_a_sentence(calls, capsys, arguments, message):
    assert main(*arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert message in output.err
    assert "Traceback" not in output.err
    assert calls == []
    if not output.err.startswith("error: 3"):
        assert output.err.count("\n") == 1
    assert not Path("runs").exists()


def test_help(capsys):
    assert main("--help") == 0
    output = capsys.readouterr()
    assert output.out == flags.HELP
    assert output.err == ""


def test_train_makes_a_folder_with_the_config_and_names_it_first_and_last(
    calls, capsys
):
    assert main(CONFIG, "--config.train.num_steps=7") == 0
    [(mode, config, arguments)] = calls
    assert mode == "train"
    assert config.train.num_steps == 7
    assert config.is_locked
    [folder] = Path("runs").iterdir()
    assert folder.name.startswith("moving_mnist-quick-")
    assert arguments == {"workdir": folder, "init_from": None}
    assert load_config(folder).to_dict() == config.to_dict()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"workdir: {folder}"] * 2


def test_a_note_of_the_config_is_printed(calls, capsys):
    assert main(CONFIG, "--config.note=mind the gap") == 0
    assert "note: mind the gap\n" in capsys.readouterr().out
    assert main(CONFIG, "--config.note=mind the gap", "--mode=describe") == 0
    assert "note: mind the gap\n" in capsys.readouterr().out


def test_train_resumes_where_the_config_agrees(calls, capsys):
    # A preset with a constant learning rate, so that the number of steps is free.
    config = CONFIG.replace("quick", "5x5-256")
    assert main(config, "--workdir=w") == 0
    assert main(config, "--workdir=w", "--config.train.num_steps=2000") == 0
    assert load_config(Path("w")).train.num_steps == 2000
    assert main("--workdir=w", "--config.eval.num_sequences=5") == 0
    assert calls[-1][1].train.num_steps == 2000
    assert calls[-1][1].eval.num_sequences == 5
    assert calls[-1][2] == {"workdir": Path("w"), "init_from": None}
    Path("w/checkpoints/100").mkdir(parents=True)
    capsys.readouterr()
    assert main(config, "--workdir=w", "--config.seed=3") == 2
    assert "config.seed is 0 there and 3 here" in capsys.readouterr().err
    assert load_config(Path("w")).seed == 0
    assert len(calls) == 3
    # Where nothing was trained, as a run failed over its data, any config may follow.
    assert main(config, "--workdir=v") == 0
    assert main(config, "--workdir=v", "--config.seed=3") == 0
    assert load_config(Path("v")).seed == 3


def test_a_run_that_is_refused_changes_nothing(calls, capsys):
    assert main(CONFIG, "--workdir=w", "--config.eval.num_sequences=4") == 0
    with workdir.locked(Path("w")):
        assert main(CONFIG, "--workdir=w", "--config.eval.num_sequences=5") == 2
    assert "another training is running" in capsys.readouterr().err
    assert load_config(Path("w")).eval.num_sequences == 4


def test_data_that_moved_stop_only_what_reads_them(calls, capsys, tmp_path):
    folder = tmp_path / "trained"
    (folder / "checkpoints" / "100").mkdir(parents=True)
    values, _ = update(
        bubbles.get_config().to_dict(), {"data.path": str(tmp_path / "gone")},
        from_text=True,
    )  # fmt: skip
    workdir.save_config(folder, ConfigDict(values))
    clip = tmp_path / "clip.npy"
    clip.touch()
    there = f"--workdir={folder}"
    assert main("--mode=describe", there) == 0
    assert main("--mode=predict", there, f"--input={clip}", "--output=o.gif") == 0
    assert main("--mode=evaluate", there) == 2
    assert "it must be an existing folder" in capsys.readouterr().err
    assert main(there) == 2
    moved = f"--config.data.path={tmp_path}"
    assert main("--mode=evaluate", there, moved) == 0
    assert main(there, moved) == 0
    assert load_config(folder).data.path == str(tmp_path)


@pytest.mark.parametrize("preset", ["", ":quick"])
def test_without_devices_nothing_is_written(calls, capsys, monkeypatch, preset):
    def default_backend():
        raise RuntimeError("Unable to initialize backend 'cuda':\nno plugin")

    monkeypatch.setattr("jax.default_backend", default_backend)
    assert main(CONFIG.replace(":quick", preset)) == 2
    error = capsys.readouterr().err
    assert "JAX finds no device (Unable to initialize backend 'cuda': no" in error
    assert calls == [] and not Path("runs").exists()


def test_the_workdir_is_named_after_an_interruption_too(calls, capsys, monkeypatch):
    def interrupt(config, *, workdir, init_from):
        raise KeyboardInterrupt

    monkeypatch.setattr("convlstm_jax.cli.train.run", interrupt)
    assert main(CONFIG, "--workdir=w") == 130
    output = capsys.readouterr()
    assert output.out == "workdir: w\nworkdir: w\n"
    assert output.err == ""


def test_evaluate_works_with_the_saved_config(calls, run_folder):
    command = ["--mode=evaluate", f"--workdir={run_folder}"]
    assert main(*command) == 0
    assert main(*command, "--config.eval.num_sequences=100") == 0
    (_, plain, arguments), (_, changed, _) = calls
    assert arguments == {"workdir": run_folder, "input": None, "every": None}
    assert plain.to_dict() == moving_mnist.get_config().to_dict()
    assert changed.eval.num_sequences == 100
    # Evaluating changes nothing that is saved.
    assert load_config(run_folder).eval.num_sequences == 10_000


def test_evaluate_refuses_another_config_or_model(calls, run_folder, capsys):
    command = ["--mode=evaluate", f"--workdir={run_folder}"]
    assert main(*command, CONFIG) == 2
    assert "config.model.features is (128, 64, 64) there" in capsys.readouterr().err
    assert main(*command, "--config.model.features=8") == 2
    assert "cannot be changed: config.model.features" in capsys.readouterr().err
    assert calls == []
    published = CONFIG.replace("quick", "5x5-128-64-64")
    assert main(*command, published) == 0


def test_evaluate_needs_checkpoints_and_describe_does_not(calls, tmp_path, capsys):
    workdir.save_config(tmp_path, moving_mnist.get_config())
    assert main("--mode=evaluate", f"--workdir={tmp_path}") == 2
    assert "holds no checkpoint" in capsys.readouterr().err
    assert main("--mode=describe", f"--workdir={tmp_path}") == 0
    assert main("--mode=describe", CONFIG) == 0
    assert [arguments for _, _, arguments in calls] == [{}, {}]


def test_a_saved_config_that_was_spoilt_is_told(calls, run_folder, capsys):
    path = run_folder / "config.json"
    path.write_text(path.read_text().replace('"seed"', '"sed"'))
    command = ["--mode=evaluate", f"--workdir={run_folder}"]
    assert main(*command, "--config.seed=1") == 2
    error = capsys.readouterr().err
    assert "config.sed is not a field (did you mean seed?)" in error


def test_several_processes_need_a_workdir_and_the_first_alone_speaks(
    calls, capsys, monkeypatch
):
    monkeypatch.setattr(process, "set_up", lambda: (1, 2))
    assert main(CONFIG) == 2
    assert "training in 2 processes needs --workdir" in capsys.readouterr().err
    assert main(CONFIG, "--mode=prepare", "--output=o") == 2
    assert "runs in one process, not in 2" in capsys.readouterr().err
    assert main(CONFIG, "--workdir=w") == 0
    assert capsys.readouterr().out == ""
    assert not Path("w/config.json").exists()
    assert len(calls) == 1


def test_errors_of_the_user_inside_a_mode_are_told_and_bugs_keep_their_traceback(
    calls, capsys, monkeypatch
):
    def fail_with(error):
        def run(config):
            raise error

        monkeypatch.setattr("convlstm_jax.cli.describe.run", run)

    fail_with(UserError("the file 'a' is empty"))
    assert main("--mode=describe", CONFIG) == 2
    assert capsys.readouterr().err == "error: the file 'a' is empty\n"
    fail_with(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        main("--mode=describe", CONFIG)
    fail_with(KeyboardInterrupt())
    assert main("--mode=describe", CONFIG) == 130
    fail_with(OSError(errno.ENOSPC, "No space left on device", "w/metrics.csv"))
    assert main("--mode=describe", CONFIG) == 2
    assert capsys.readouterr().err == (
        "error: the file system refuses 'w/metrics.csv' (No space left on device); "
        "what was saved before is intact\n"
    )
    fail_with(ProcessLookupError(errno.ESRCH, "No such process"))
    with pytest.raises(ProcessLookupError):
        main("--mode=describe", CONFIG)


PROGRAM = """
import sys
from convlstm_jax.cli.entry import main
code = main(["main.py", *sys.argv[1:]])
assert "jax" not in sys.modules
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trian.num_steps=3"], b"error: unknown flag"),
        (["--config=\u00fc.py", "--workdir=w"], b"error: --config=\\xfc.py: "),
    ],
)
def test_the_program_answers_before_jax_is_imported(tmp_path, arguments, message):
    """Letters that the terminal lacks are shown by number."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(message)
    assert done.stderr.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_is_no_error(calls):
    arguments = (CONFIG, "--mode=train", "--workdir=w")
    reader, writer = os.pipe()
    os.close(reader)
    former = sys.stdout
    with os.fdopen(writer, "w") as pipe:
        sys.stdout = pipe
        try:
            assert main(*arguments) == 0
        finally:
            sys.stdout = former
    assert len(calls) == 1
