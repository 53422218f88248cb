import json
import math
import shutil
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.training import checkpoint_reading as reading
from convlstm_jax.training.checkpoint import Checkpoints
from convlstm_jax.training.checkpoint_reading import CheckpointError
from convlstm_jax.training.state import EarlyStopping


def restore_params(directory):
    """The best step, and whether its parameters are those that were saved."""
    step, part = reading.restore_best(directory, {"params": make_state(0)["params"]})
    assert_same(part, {"params": make_state(step)["params"]})
    return step


def make_state(seed):
    generator = np.random.default_rng(seed)
    return {
        "params": {"kernel": jnp.asarray(generator.normal(size=(40, 30)), "float32")},
        "opt_state": (jnp.asarray(generator.normal(size=50_000), "float32"),),
    }


def progress_of(step):
    return EarlyStopping(best_value=1.0, best_step=step)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the steps 1 (best), 2 and 3; step s holds `make_state(s)`."""
    directory = tmp_path_factory.mktemp("checkpoints")
    with Checkpoints(directory) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, make_state(step), progress_of(step), float(step))
    return directory


@pytest.fixture
def directory(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def flip_bits(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def shorten(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def delete(path):
    path.unlink()


def files_of(step_directory):
    return sorted(path for path in step_directory.rglob("*") if path.is_file())


def largest_file(step_directory):
    return max(files_of(step_directory), key=lambda path: path.stat().st_size)


def assert_same(state, expected):
    for leaf, wanted in zip(
        jax.tree.leaves(state), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_array_equal(leaf, wanted, strict=True)


def set_back(directory):
    if (directory / "3.damaged").exists():
        (directory / "3.damaged").rename(directory / "3")


@pytest.mark.parametrize("damage", [flip_bits, shorten, delete])
def test_damage_of_any_file_never_restores_wrong_numbers(
    directory, damage, caplog, capfd
):
    noticed = set()
    for path in files_of(directory / "3"):
        content = path.read_bytes()
        damage(path)
        caplog.clear()
        step = check_restored(directory)
        if step == 3:
            assert caplog.messages == []
        else:
            assert step == 2
            (message,) = caplog.messages
            assert message.startswith(
                f"The checkpoint of step 3 in {directory} is damaged ("
            )
            assert "\n" not in message
            noticed.add(path.name)
            set_back(directory)
        path.write_bytes(content)
    assert capfd.readouterr() == ("", "")
    # The record, and the data of the arrays: no damage to it goes unseen.
    assert {"metadata", largest_file(directory / "3").name} <= noticed


@pytest.mark.parametrize(
    "value",
    [
        [], None,
        {"commit_timestamp_nsecs": "x", "item_handlers": [1], "custom_metadata": 3},
        {"commit_timestamp_nsecs": 10**40, "tree_metadata": [2], "crc32": {},
         "content": 1},
    ],
)  # fmt: skip
def test_other_json_anywhere_never_restores_wrong_numbers(directory, value, caplog):
    for path in files_of(directory / "3"):
        if path.stat().st_size > 10_000:
            continue
        content = path.read_bytes()
        path.write_text(json.dumps(value))
        assert check_restored(directory) in (2, 3)
        set_back(directory)
        path.write_bytes(content)


def check_restored(directory):
    with Checkpoints(directory) as checkpoints:
        step, state, progress = checkpoints.restore_latest(make_state(0))
    assert_same(state, make_state(step))
    assert progress == progress_of(step)
    return step


@pytest.mark.parametrize("item", [".", "record", "state"])
def test_exchanged_folders_are_not_taken_for_each_other(directory, item, caplog):
    first, other = directory / "3" / item, directory / "2" / item
    first.rename(directory / "between")
    other.rename(first)
    (directory / "between").rename(other)
    assert check_restored(directory) == 1
    assert "The checkpoint of step 2 in" in caplog.text
    assert ("(it is that of step 2)" in caplog.text) == (item != "state")


def test_a_link_or_copy_under_another_number_is_damaged(directory, caplog):
    (directory / "4").symlink_to(directory / "1", target_is_directory=True)
    shutil.copytree(directory / "2", directory / "5")
    shutil.copytree(directory / "3", directory / "03")  # These are none of ours.
    (directory / "4.orbax-checkpoint-tmp").mkdir()
    (directory / "6").write_text("a file")
    assert reading.steps_on_disk(directory) == [1, 2, 3, 4, 5]
    assert restore_params(directory) == 1
    assert check_restored(directory) == 3
    assert "step 4 in" in caplog.text and "step 5 in" in caplog.text
    assert (directory / "4.damaged").is_symlink()


@pytest.mark.parametrize("name", ["a\\b", "[!x]*? ü %20#"])
def test_paths_with_characters_of_patterns(tmp_path, name):
    directory = tmp_path / name / "checkpoints"
    with Checkpoints(directory) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, make_state(step), progress_of(step), 3.0 - step)
    assert check_restored(directory) == restore_params(directory) == 2
    assert [path.name for path in tmp_path.iterdir()] == [name]
    flip_bits(largest_file(directory / "2"))
    assert check_restored(directory) == 1


def test_flipped_numbers_are_named(directory, caplog):
    # As if the storage had returned other numbers without noticing.
    state = make_state(3)
    state["params"]["kernel"] = state["params"]["kernel"].at[7, 9].add(1e-6)
    with Checkpoints(directory.parent / "other") as checkpoints:
        checkpoints.save(3, state, EarlyStopping())
    shutil.rmtree(directory / "3" / "state")
    shutil.copytree(directory.parent / "other" / "3" / "state", directory / "3/state")
    assert check_restored(directory) == 2
    assert "(params/kernel does not match its checksum)" in caplog.text


def test_training_passes_a_damaged_step_again(directory, caplog):
    flip_bits(largest_file(directory / "3"))
    kept = largest_file(directory / "3").read_bytes()
    with Checkpoints(directory) as checkpoints:
        assert checkpoints.restore_latest(make_state(0))[0] == 2
        assert reading.steps_on_disk(directory) == [1, 2]
        checkpoints.save(3, make_state(3), progress_of(3), 0.5)
    assert check_restored(directory) == restore_params(directory) == 3
    assert len(caplog.messages) == 1
    assert largest_file(directory / "3.damaged").read_bytes() == kept
    flip_bits(largest_file(directory / "3"))
    assert check_restored(directory) == 2
    assert (directory / "3.damaged").exists()
    assert (directory / "3.damaged2").exists()


def test_none_intact(directory, caplog):
    for step in (1, 2, 3):
        shorten(largest_file(directory / str(step)))
    message = rf"No checkpoint in {directory} is intact: those of the steps"
    with (
        Checkpoints(directory) as checkpoints,
        pytest.raises(CheckpointError, match=message + " 3, 2, 1 are damaged"),
    ):
        checkpoints.restore_latest(make_state(0))
    assert len(caplog.messages) == 3
    assert sorted(path.name for path in directory.iterdir()) == ["1", "2", "3"]


def test_the_best_falls_back_without_touching_the_folder(directory, caplog):
    shutil.rmtree(directory / "1" / "record")
    names = sorted(directory.rglob("*"))
    assert restore_params(directory) == 2  # The second best.
    [message] = caplog.messages
    assert message.startswith(f"The checkpoint of step 1 in {directory} is damaged (")
    assert sorted(directory.rglob("*")) == names
    for path in files_of(directory / "2") + files_of(directory / "3"):
        flip_bits(path)
    caplog.clear()
    with pytest.raises(CheckpointError, match="steps 3, 2, 1 are damaged"):
        restore_params(directory)
    assert len(caplog.messages) == 3


def test_parameters_alone_do_not_read_the_optimizer_state(directory, caplog):
    flip_bits(largest_file(directory / "1"))  # Holds the 50,000 numbers of opt_state.
    assert restore_params(directory) == 1
    assert caplog.messages == []


def test_checksum_sees_every_bit_shape_dtype_and_name():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    reference = reading.checksum("a", array)
    assert reading.checksum("a", array.copy(order="F")) == reference
    flipped = array.copy()
    flipped.view(np.uint8)[1, 5] ^= 1
    others = [
        reading.checksum("a", flipped),
        reading.checksum("a", array.reshape(3, 2)),
        reading.checksum("a", array.view(np.int32)),
        reading.checksum("b", array),
    ]
    assert len({reference, *others}) == 5


RECORD = reading.Record(
    step=4,
    validation_loss=-math.inf,
    early_stopping=EarlyStopping(best_value=0.1 + 0.2, best_step=2),
    leaves={"ü/a": reading.LeafRecord(shape=[2, 3], dtype="float32", crc32=7)},
)


def sealed_again(**changes):
    content = {**RECORD.seal()["content"], **changes}
    text = json.dumps(content, sort_keys=True)
    return {"crc32": zlib.crc32(text.encode()), "content": content}


@pytest.mark.parametrize(
    ("sealed", "message"),
    [
        ({**RECORD.seal(), "content": {"step": 4}}, "does not match its checksum"),
        ([], "its record has no checksum"),
        (sealed_again(step="4"), "of another version: step has"),
        (sealed_again(early_stopping={"best": 1}), "early_stopping.best has"),
        (sealed_again(leaves={"a": {"shape": [2.5], "dtype": 1}}), "leaves.a.shape.0"),
        (sealed_again(more=1), "version: more has"),
    ],
)
def test_a_record_comes_back_or_is_refused(sealed, message):
    assert reading.Record.unseal(json.loads(json.dumps(RECORD.seal()))) == RECORD
    with pytest.raises(ValueError, match=message):
        reading.Record.unseal(sealed)
