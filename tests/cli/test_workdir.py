import json
import os

import pytest

from configs import moving_mnist
from convlstm_jax.cli import workdir
from convlstm_jax.cli.experiment import experiment, leaves
from convlstm_jax.cli.saved_config import load_config, save_config
from convlstm_jax.errors import UserError


def test_the_config_survives_the_round_trip(tmp_path):
    config = moving_mnist.get_config("9x9-128-64-64")
    save_config(tmp_path, config)
    loaded, _ = load_config(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.model.features == (128, 64, 64)
    types = {path: type(value) for path, value in leaves(config).items()}
    assert {path: type(value) for path, value in leaves(loaded).items()} == types
    assert loaded.is_locked
    experiment(loaded)


def test_saving_replaces_the_file_and_leaves_no_other(tmp_path):
    config = moving_mnist.get_config()
    save_config(tmp_path, config)
    config.seed = 3
    save_config(tmp_path, config)
    assert load_config(tmp_path)[0].seed == 3
    assert os.listdir(tmp_path) == ["config.json"]


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    save_config(tmp_path, moving_mnist.get_config())

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match="disk full"):
        save_config(tmp_path, moving_mnist.get_config())
    assert os.listdir(tmp_path) == ["config.json"]
    assert load_config(tmp_path)[0].seed == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read: Expecting property name"),
        ("[1]", "must be a JSON object"),
        ("\xff", "cannot be read"),
    ],
)
def test_a_broken_config_file_is_named(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=message) as caught:
        load_config(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fresh_folders_never_collide(tmp_path):
    parent = tmp_path / "runs"
    made = [
        workdir.make_fresh("moving_mnist", "quick", parent=parent) for _ in range(4)
    ]
    assert len(set(made)) == 4
    assert all(folder.is_dir() for folder in made)
    assert all(folder.name.startswith("moving_mnist-quick-2") for folder in made)


def test_fresh_folders_are_under_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = workdir.make_fresh("base", "")
    assert folder.parent.name == "runs"
    assert (tmp_path / folder).is_dir()
    assert "--" not in folder.name


def test_a_fresh_folder_that_cannot_be_made_is_told(tmp_path):
    parent = tmp_path / "runs"
    parent.touch()
    with pytest.raises(UserError, match=r"for a new run cannot be made.*--workdir"):
        workdir.make_fresh("base", "", parent=parent)


def test_a_given_folder_is_made_or_used(tmp_path):
    folder = tmp_path / "a" / "b"
    workdir.make(folder)
    (folder / "notes.txt").touch()
    workdir.make(folder)
    assert os.listdir(folder) == ["notes.txt"]


def test_folders_that_cannot_be_used_are_refused(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match=r"is a file: it must be a folder"):
        workdir.make(file)
    with pytest.raises(UserError, match=r"cannot be written to \(Not a directory\)"):
        workdir.make(file / "below")

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match=r"cannot be written to \(Permission denied\)"):
        workdir.make(tmp_path)


def test_checkpoints_without_a_config_are_not_trained_on(tmp_path):
    (tmp_path / "checkpoints" / "100").mkdir(parents=True)
    with pytest.raises(UserError, match=r"checkpoints but no config\.json"):
        workdir.make(tmp_path)


def test_what_a_run_lacks_is_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        workdir.require_run(tmp_path / "nowhere", checkpoints=True)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="is a file: it must be a folder"):
        workdir.require_run(file, checkpoints=True)
    with pytest.raises(UserError, match=r"holds no config\.json"):
        workdir.require_run(tmp_path, checkpoints=True)
    save_config(tmp_path, moving_mnist.get_config())
    workdir.require_run(tmp_path, checkpoints=False)
    with pytest.raises(UserError, match="holds no checkpoint under checkpoints/"):
        workdir.require_run(tmp_path, checkpoints=True)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="holds no checkpoint under checkpoints/"):
        workdir.require_run(tmp_path, checkpoints=True)
    (tmp_path / "checkpoints" / "100").mkdir()
    workdir.require_run(tmp_path, checkpoints=True)


def test_the_file_is_plain_json(tmp_path):
    save_config(tmp_path, moving_mnist.get_config())
    text = (tmp_path / "config.json").read_text()
    assert json.loads(text)["model"]["features"] == [128, 64, 64]
    assert text.endswith("}\n")


def test_two_trainings_do_not_share_a_folder(tmp_path):
    with (
        workdir.locked(tmp_path),
        pytest.raises(UserError, match="another training is running in --workdir"),
        workdir.locked(tmp_path),
    ):
        raise AssertionError("the second training got in")
    with workdir.locked(tmp_path):
        pass
