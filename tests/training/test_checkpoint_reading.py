import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.training import checkpoint_reading as reading
from convlstm_jax.training.checkpoint import CheckpointError, Checkpoints, restore_part


def restore_params(directory, template, which="best", item="params"):
    step, part = restore_part(directory, {item: template}, which=which)
    return step, part[item]


def make_state(seed):
    generator = np.random.default_rng(seed)
    return {
        "params": {"kernel": jnp.asarray(generator.normal(size=(40, 30)), "float32")},
        "opt_state": (jnp.asarray(generator.normal(size=50_000), "float32"), seed),
    }


def open_checkpoints(directory):
    return Checkpoints(directory, metric_name="loss", higher_is_better=False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the steps 1 (best), 2 and 3; step s holds `make_state(s)`."""
    directory = tmp_path_factory.mktemp("checkpoints")
    with open_checkpoints(directory) as checkpoints:
        for step in (1, 2, 3):
            loss = {"loss": float(step)}
            checkpoints.save(step, make_state(step), {"step": step}, loss)
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


def empty(path):
    path.write_bytes(b"")


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


@pytest.mark.parametrize("damage", [flip_bits, shorten, empty, delete])
def test_damage_of_any_file_never_restores_wrong_numbers(directory, damage, caplog):
    template = make_state(0)
    noticed = []
    for path in files_of(directory / "3"):
        content = path.read_bytes()
        damage(path)
        caplog.clear()
        with open_checkpoints(directory) as checkpoints:
            step, state, progress = checkpoints.restore_latest(template)
            assert_same(state, make_state(step))
            assert progress == {"step": step}
            # The best one is judged by sealed records alone.
            assert checkpoints.best_step() == 1
        if step == 3:
            assert caplog.messages == []
        else:
            assert step == 2
            (message,) = caplog.messages
            assert message.startswith(
                f"The checkpoint of step 3 in {directory} is damaged ("
            )
            assert "\n" not in message
            noticed.append(path.relative_to(directory / "3"))
            (directory / "3.damaged").rename(directory / "3")
        path.write_bytes(content)
    names = {str(path) for path in noticed}
    assert "record/metadata" in names
    # The data of the arrays: no damage to it goes unseen.
    largest = largest_file(directory / "3").relative_to(directory / "3")
    assert str(largest) in names


def test_flipped_numbers_are_named(directory, caplog):
    # As if the storage had returned other numbers without noticing.
    state = make_state(3)
    state["params"]["kernel"] = state["params"]["kernel"].at[7, 9].add(1e-6)
    with open_checkpoints(directory.parent / "other") as checkpoints:
        checkpoints.save(3, state, {})
    shutil.rmtree(directory / "3" / "state")
    shutil.copytree(directory.parent / "other" / "3" / "state", directory / "3/state")
    with open_checkpoints(directory) as checkpoints:
        step, _, _ = checkpoints.restore_latest(make_state(0))
    assert step == 2
    assert "(params/kernel does not match its checksum)" in caplog.text


def test_training_passes_a_damaged_step_again(directory, caplog):
    flip_bits(largest_file(directory / "3"))
    kept = largest_file(directory / "3").read_bytes()
    with open_checkpoints(directory) as checkpoints:
        assert checkpoints.restore_latest(make_state(0))[0] == 2
        assert checkpoints.all_steps() == [1, 2]
        checkpoints.save(3, make_state(4), {"step": 3}, {"loss": 0.5})
        step, state, _ = checkpoints.restore_latest(make_state(0))
        assert step == 3
        assert_same(state, make_state(4))
        assert checkpoints.best_step() == 3
    assert len(caplog.messages) == 1
    assert largest_file(directory / "3.damaged").read_bytes() == kept

    flip_bits(largest_file(directory / "3"))
    with open_checkpoints(directory) as checkpoints:
        assert checkpoints.restore_latest(make_state(0))[0] == 2
    assert (directory / "3.damaged").exists()
    assert (directory / "3.damaged2").exists()


def test_none_intact(directory, caplog):
    for step in (1, 2, 3):
        shorten(largest_file(directory / str(step)))
    message = rf"No checkpoint in {directory} is intact: those of the steps"
    with (
        open_checkpoints(directory) as checkpoints,
        pytest.raises(CheckpointError, match=message + " 3, 2, 1 are damaged"),
    ):
        checkpoints.restore_latest(make_state(0))
    assert len(caplog.messages) == 3
    assert sorted(path.name for path in directory.iterdir()) == ["1", "2", "3"]


def test_parameters_fall_back_without_touching_the_folder(directory, caplog):
    for path in files_of(directory / "1"):
        flip_bits(path)
    names = sorted(directory.rglob("*"))
    step, params = restore_params(directory, make_state(0)["params"])
    assert step == 2  # the second best
    assert_same(params, make_state(2)["params"])
    assert sorted(directory.rglob("*")) == names
    # Step 1 counts as the last choice once its metric is unreadable.
    for path in files_of(directory / "2") + files_of(directory / "3"):
        flip_bits(path)
    caplog.clear()
    with pytest.raises(CheckpointError, match="steps 3, 2, 1 are damaged"):
        restore_params(directory, make_state(0)["params"])
    assert len(caplog.messages) == 3


def test_parameters_alone_do_not_read_the_optimizer_state(directory, caplog):
    flip_bits(largest_file(directory / "3"))  # holds the 50,000 numbers of opt_state
    template = make_state(0)
    step, params = restore_params(directory, template["params"], which="latest")
    assert step == 3
    assert_same(params, make_state(3)["params"])
    assert caplog.messages == []


def test_unfinished_and_foreign_names_are_no_steps(directory):
    (directory / "4.orbax-checkpoint-tmp").mkdir()
    (directory / "3.damaged").mkdir()
    (directory / "5").write_text("a file")
    assert reading.steps_on_disk(directory) == [1, 2, 3]
    assert reading.steps_on_disk(directory / "missing") == []
    assert restore_params(directory, make_state(0)["params"], which="latest")[0] == 3


def test_a_lost_commit_file_does_not_hide_a_step(directory):
    for step in (1, 2, 3):
        (directory / str(step) / "commit_success.txt").unlink(missing_ok=True)
    with open_checkpoints(directory) as checkpoints:
        assert checkpoints.restore_latest(make_state(0))[0] == 3


def test_a_damaged_record_is_told_though_another_step_is_taken(directory, caplog):
    shutil.rmtree(directory / "1" / "record")
    step, _ = restore_params(directory, make_state(0)["params"])
    assert step == 2
    [message] = caplog.messages
    assert message.startswith(f"The checkpoint of step 1 in {directory} is damaged (")
    assert message.endswith("it may have been the best one.")
