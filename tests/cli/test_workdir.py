"""The folder of a run, and the config saved there."""

import json
import os
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import bubbles, moving_mnist, radar_nowcasting
from convlstm_jax.cli import workdir
from convlstm_jax.cli.experiment import experiment, leaves, update
from convlstm_jax.cli.workdir import (
    check_resumes,
    check_same_model,
    load_config,
    save_config,
)
from convlstm_jax.errors import UserError

CONFIG = moving_mnist.get_config()
FREE_WHEN_RESUMING = {
    "note", "data.digits_dir", "data.tfds_dir", "data.test_file",
    "data.num_test_sequences", "data.num_workers", "data.prefetch_batches",
    "train.num_steps", "train.log_every_steps", "train.early_stopping_patience",
    "train.num_pictures", "train.trackers", "eval.num_sequences", "eval.batch_size",
    "eval.num_pictures", "eval.num_vmaf_sequences",
}  # fmt: skip
FOLDER = Path("runs/a")


def changed(path, value):
    config = moving_mnist.get_config()
    config.update_from_flattened_dict({path: value})
    return config


def another(value):
    if isinstance(value, tuple):
        return (*value, 1)
    if isinstance(value, bool):
        return not value
    return value + type(value)(1) if isinstance(value, (int, float)) else value + "x"


def test_resuming_may_change_the_free_fields_alone():
    paths = [path for path in leaves(CONFIG) if "name" not in path]
    assert set(paths) >= FREE_WHEN_RESUMING
    for path in paths:
        before = leaves(CONFIG)[path]
        config = changed(path, another(before))
        if path in FREE_WHEN_RESUMING:
            check_resumes(CONFIG, config, FOLDER)
            continue
        with pytest.raises(UserError) as caught:
            check_resumes(CONFIG, config, FOLDER)
        assert str(caught.value) == (
            "--workdir=runs/a holds a run with another config, so choose another folder"
            f" or give the same config: config.{path} is {before!r} there and "
            f"{another(before)!r} here"
        )


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_the_number_of_steps_shapes_some_schedules(schedule):
    saved = changed("optimizer.schedule", schedule)
    config = changed("optimizer.schedule", schedule)
    config.train.num_steps = 7
    config.seed = 4
    message = (
        r"config\.seed is 0 there and 4 here, config\.train\.num_steps is 100000 there "
        rf"and 7 here; the schedule '{schedule}' spans all steps"
    )
    with pytest.raises(UserError, match=message):
        check_resumes(saved, config, FOLDER)


def test_data_may_lie_elsewhere_but_be_no_others():
    def films(path):
        config = bubbles.get_config().to_dict()
        return ConfigDict(update(config, {"data.path": path}, from_text=True)[0])

    check_resumes(films("films"), films("prepared"), FOLDER)
    with pytest.raises(UserError, match=r"data\.path is 'films' there and None"):
        check_resumes(films("films"), bubbles.get_config(), FOLDER)


def test_the_model_of_trained_weights_stays():
    with pytest.raises(UserError, match=r"cannot be changed: config\.model\.peephole"):
        check_same_model(CONFIG, changed("model.peephole", "none"), FOLDER)
    with pytest.raises(UserError, match=r"config\.task\.name is 'forecast' there"):
        check_same_model(CONFIG, changed("task.name", "predict"), FOLDER)
    for path, value in (
        ("model.dtype", "bfloat16"),
        ("model.implementation", "scan"),
        ("model.memory", "checkpoint"),
        ("eval.num_sequences", 10),
        ("task.num_output_frames", 20),
    ):
        check_same_model(CONFIG, changed(path, value), FOLDER)


def test_an_ensemble_has_any_number_of_members_but_one():
    ensemble = radar_nowcasting.get_config("ensemble")

    def other(path, value):
        values, _ = update(ensemble.to_dict(), {path: value}, from_text=False)
        return ConfigDict(values)

    check_same_model(ensemble, other("task.num_members", 50), FOLDER)
    with pytest.raises(UserError, match=r"task\.num_members is 12 there and 1 here"):
        check_same_model(ensemble, other("task.num_members", 1), FOLDER)
    single = radar_nowcasting.get_config("quick")
    with pytest.raises(UserError, match=r"task\.num_members is 1 there and 12 here"):
        check_same_model(single, ensemble, FOLDER)


def test_a_saved_config_is_read_as_it_was(tmp_path):
    save_config(tmp_path, CONFIG)
    config = moving_mnist.get_config("9x9-128-64-64")
    save_config(tmp_path, config)
    assert os.listdir(tmp_path) == ["config.json"]
    loaded = load_config(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    types = {path: type(value) for path, value in leaves(config).items()}
    assert {path: type(value) for path, value in leaves(loaded).items()} == types
    assert loaded.is_locked
    experiment(loaded)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["version"] == 1 and content["model"]["features"] == [128, 64, 64]


def test_a_field_that_a_later_version_added_takes_its_default(tmp_path):
    save_config(tmp_path, CONFIG)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    del content["optimizer"]["clip_norm"], content["note"]
    path.write_text(json.dumps(content))
    assert load_config(tmp_path).to_dict() == CONFIG.to_dict()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "has the version None"),
        ("{", "cannot be read: Expecting property name"),
        ("[" * 100_000, "cannot be read"),
        ('{"seed": 0}', "has the version None: it must be 1"),
        ('{"version": 2}', "has the version 2: it must be 1"),
        ('{"version": 1, "model": 3}', "config.model.name is None: it must be one"),
        ('{"version": 1, "a.b": 0}', "must be the config of a run"),
    ],
)
def test_a_spoilt_file_is_named(tmp_path, text, message):
    (tmp_path / "config.json").write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=message) as caught:
        load_config(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)


def test_fresh_folders_never_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = [workdir.make_fresh("moving_mnist", "quick") for _ in range(4)]
    assert len(set(made)) == 4
    for folder in made:
        assert folder.is_dir() and folder.parent == Path("runs")
        assert folder.name.startswith("moving_mnist-quick-2")
    assert "--" not in workdir.make_fresh("base", "").name


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match=r"cannot be made \(File exists\): it must be"):
        workdir.make(file)
    with pytest.raises(UserError, match=r"cannot be made \(Not a directory\)"):
        workdir.make(file / "below")
    (tmp_path / "checkpoints" / "100").mkdir(parents=True)
    with pytest.raises(UserError, match=r"checkpoints but no config\.json"):
        workdir.make(tmp_path)


def test_what_a_run_lacks_is_named(tmp_path):
    def lacks(folder, message, checkpoints=True):
        with pytest.raises(UserError, match=message):
            workdir.require_run(folder, checkpoints=checkpoints)

    lacks(tmp_path / "nowhere", "does not exist")
    lacks(tmp_path, r"holds no config\.json")
    save_config(tmp_path, CONFIG)
    workdir.require_run(tmp_path, checkpoints=False)
    lacks(tmp_path, "holds no checkpoint under checkpoints/")
    (tmp_path / "checkpoints").mkdir()
    lacks(tmp_path, "holds no checkpoint under checkpoints/")
    (tmp_path / "checkpoints" / "100").mkdir()
    workdir.require_run(tmp_path, checkpoints=True)


def test_two_trainings_do_not_share_a_folder(tmp_path):
    with (
        workdir.locked(tmp_path),
        pytest.raises(UserError, match="another training is running in --workdir"),
        workdir.locked(tmp_path),
    ):
        raise AssertionError("the second training got in")
    with workdir.locked(tmp_path):
        pass
