import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import bubbles, moving_mnist
from convlstm_jax.cli.experiment import leaves, update
from convlstm_jax.cli.saved_config import (
    check_resumes,
    check_same_model,
    load_config,
    save_config,
)
from convlstm_jax.errors import UserError

FREE_WHEN_RESUMING = {
    "note",
    "data.digits_dir",
    "data.tfds_dir",
    "data.test_file",
    "data.num_test_sequences",
    "data.num_workers",
    "data.prefetch_batches",
    "train.num_steps",
    "train.log_every_steps",
    "train.early_stopping_patience",
    "train.num_pictures",
    "eval.num_sequences",
    "eval.batch_size",
    "eval.num_pictures",
    "eval.num_vmaf_sequences",
}

WORKDIR = Path("runs/a")


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


@pytest.mark.parametrize(
    "path", [path for path in leaves(moving_mnist.get_config()) if "name" not in path]
)
def test_resuming_may_change_the_free_fields_alone(path):
    saved = moving_mnist.get_config()
    before = leaves(saved)[path]
    config = changed(path, another(before))
    if path in FREE_WHEN_RESUMING:
        check_resumes(saved, config, WORKDIR)
        return
    with pytest.raises(UserError) as caught:
        check_resumes(saved, config, WORKDIR)
    assert str(caught.value) == (
        "--workdir=runs/a holds a run with another config, so choose another folder or "
        f"give the same config: config.{path} is {before!r} there and "
        f"{another(before)!r} here"
    )


def test_every_free_field_exists():
    assert set(leaves(moving_mnist.get_config())) >= FREE_WHEN_RESUMING


def test_a_saved_config_is_read_as_it_was(tmp_path):
    config = moving_mnist.get_config()
    save_config(tmp_path, config)
    loaded, added = load_config(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.is_locked and added == []
    assert json.loads((tmp_path / "config.json").read_text())["version"] == 1


def test_a_field_that_a_later_version_added_takes_its_default_and_is_named(tmp_path):
    save_config(tmp_path, moving_mnist.get_config())
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    del content["optimizer"]["clip_norm"], content["note"]
    path.write_text(json.dumps(content))
    loaded, added = load_config(tmp_path)
    assert loaded.to_dict() == moving_mnist.get_config().to_dict()
    assert set(added) == {"optimizer.clip_norm", "note"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must be a JSON object"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('{"seed": 0}', "has the version None: it must be 1"),
        ('{"version": 2}', "has the version 2: it must be 1"),
        ('{"version": 1, "model": 3}', "config.model.name is None: it must be one"),
        ('{"version": 1, "a.b": 0}', "must be the config of a run"),
    ],
)
def test_a_spoilt_file_is_named(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_config(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_the_number_of_steps_shapes_some_schedules(schedule):
    saved = changed("optimizer.schedule", schedule)
    config = changed("optimizer.schedule", schedule)
    config.train.num_steps = 7
    message = (
        r"config\.train\.num_steps is 100000 there and 7 here; the schedule "
        rf"'{schedule}' spans all steps"
    )
    with pytest.raises(UserError, match=message):
        check_resumes(saved, config, WORKDIR)


def test_data_may_lie_elsewhere_but_be_no_others():
    def films(path):
        values, _ = update(
            bubbles.get_config().to_dict(), {"data.path": path}, from_text=True
        )
        return ConfigDict(values)

    check_resumes(films("films"), films("prepared"), WORKDIR)
    with pytest.raises(
        UserError, match=r"config\.data\.path is 'films' there and None"
    ):
        check_resumes(films("films"), bubbles.get_config(), WORKDIR)


def test_all_differing_fields_are_listed():
    config = moving_mnist.get_config()
    config.model.features = (8,)
    config.seed = 4
    with pytest.raises(UserError) as caught:
        check_resumes(moving_mnist.get_config(), config, WORKDIR)
    assert "config.seed is 0 there and 4 here" in str(caught.value)
    assert "config.model.features is (128, 64, 64) there and (8,) here" in str(
        caught.value
    )


def test_the_model_of_trained_weights_stays():
    saved = moving_mnist.get_config()
    with pytest.raises(UserError, match=r"cannot be changed: config\.model\.peephole"):
        check_same_model(saved, changed("model.peephole", "none"), WORKDIR)
    with pytest.raises(UserError, match=r"config\.task\.name is 'forecast' there"):
        check_same_model(saved, changed("task.name", "predict"), WORKDIR)
    for path, value in (
        ("model.dtype", "bfloat16"),
        ("model.implementation", "scan"),
        ("model.memory", "checkpoint"),
        ("eval.num_sequences", 10),
        ("task.num_output_frames", 20),
    ):
        check_same_model(saved, changed(path, value), WORKDIR)
