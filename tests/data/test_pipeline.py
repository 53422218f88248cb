"""The input pipeline: order, shards, workers, resuming, padding."""

import threading

import numpy as np
import pytest
from absl import flags

from convlstm_jax.data.pipeline import eval_batches, train_batches


class Numbered:
    """Clip i is filled with i, so that a batch tells which clips it holds."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {
            "frames": np.full((2, 3, 4, 1), index, np.uint8),
            "label": np.asarray(index, np.int32),
        }


def take(count, batch_size=8, length=50, **arguments):
    iterator = train_batches(Numbered(length), batch_size, **({"seed": 1} | arguments))
    try:
        return [next(iterator) for _ in range(count)]
    finally:
        iterator.close()


def order(*arguments, **more):
    return np.stack([batch["label"] for batch in take(*arguments, **more)])


def add_noise(clip, rng):
    """An augmentation that tells which clip was drawn for, and with which numbers."""
    return clip | {"frames": clip["frames"] + rng.random()}


def augmented(count, **arguments):
    batches = take(count, length=12, augment=add_noise, **arguments)
    return np.stack([batch["frames"][:, 0, 0, 0, 0] for batch in batches])


def test_every_epoch_is_a_new_permutation():
    # 24 clips, batches of 10: epochs end inside batches.
    epochs = order(12, 10, 24).reshape(5, 24)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(24))
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert not np.array_equal(epochs[0], np.arange(24))
    assert not np.array_equal(order(3), order(3, seed=2))


@pytest.mark.parametrize("run", [order, augmented])
def test_processes_share_the_same_global_batch(run):
    parts = [run(6, process_index=index, process_count=4) for index in range(4)]
    assert parts[0].shape[1] == 2
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), run(6))


@pytest.mark.parametrize("start_step", [1, 7, 100_000])
def test_resuming_gives_the_same_batches(start_step):
    first = max(0, start_step - 3)
    run = order(8, start_step=first)[start_step - first :][:4]
    resumed = order(4, start_step=start_step, process_index=1, process_count=2)
    np.testing.assert_array_equal(resumed, run[:, 4:])


def test_augmentation_draws_anew_for_each_clip_of_each_epoch():
    frames, plain = augmented(6), order(6, length=12)
    np.testing.assert_array_equal(np.floor(frames), plain)  # The order is as without.
    assert len(np.unique(frames - plain)) == 48
    assert not np.intersect1d(augmented(6, seed=2) % 1, frames % 1).size
    resumed = augmented(3, start_step=3, prefetch_batches=0)
    np.testing.assert_array_equal(resumed, frames[3:])


def test_close_ends_the_thread():
    iterator = train_batches(Numbered(50), 8, seed=1)
    next(iterator)
    reading = [t for t in threading.enumerate() if "grain-prefetch" in t.name]
    assert reading
    iterator.close()
    for thread in reading:
        thread.join(timeout=5)
        assert not thread.is_alive()
    with pytest.raises(ValueError, match="closed"):
        next(iterator)


@pytest.fixture
def parsed_flags():
    """Grain's workers need parsed flags, which `absl.app.run` sees to elsewhere."""
    parsed_before = flags.FLAGS.is_parsed()
    flags.FLAGS.mark_as_parsed()
    yield
    if not parsed_before:
        flags.FLAGS.unparse_flags()


@pytest.mark.slow
def test_workers_change_nothing(parsed_flags):
    arguments = {"start_step": 3, "augment": add_noise}
    expected = take(4, **arguments)
    batches = take(4, num_workers=2, prefetch_batches=1, **arguments)
    for batch, other in zip(batches, expected, strict=True):
        assert type(batch["frames"]) is np.ndarray
        np.testing.assert_array_equal(batch["frames"], other["frames"])
        np.testing.assert_array_equal(batch["label"], other["label"])


def test_evaluation_is_in_order_and_padded():
    batches = list(eval_batches(Numbered(50), 8, 19))
    assert len(batches) == 3
    assert all(batch["frames"].shape == (8, 2, 3, 4, 1) for batch in batches)
    weight = np.concatenate([batch["weight"] for batch in batches])
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight, np.arange(24) < 19)
    # The padding repeats the last clip.
    found = np.concatenate([batch["label"] for batch in batches])
    np.testing.assert_array_equal(found, np.minimum(np.arange(24), 18))
    batches = list(eval_batches(Numbered(16), 8, 16))
    assert len(batches) == 2
    assert all((batch["weight"] == 1).all() for batch in batches)


def test_processes_share_the_evaluation():
    whole = list(eval_batches(Numbered(50), 8, 19))
    parts = [
        list(eval_batches(Numbered(50), 8, 19, process_index=p, process_count=4))
        for p in range(4)
    ]
    assert [len(part) for part in parts] == [3, 3, 3, 3]
    for key in ("frames", "label", "weight"):
        for step in range(3):
            np.testing.assert_array_equal(
                np.concatenate([part[step][key] for part in parts]), whole[step][key]
            )


def test_wrong_arguments():
    for batch_size, count, words in (
        (7, 2, "batch_size is 7: .* processes, 2"),
        (0, 1, "batch_size is 0"),
    ):
        with pytest.raises(ValueError, match=words):
            train_batches(Numbered(50), batch_size, seed=0, process_count=count)
        with pytest.raises(ValueError, match=words):
            eval_batches(Numbered(50), batch_size, 20, process_count=count)
    for number in (0, 51):
        words = f"num_sequences is {number}: it must be from 1 to 50"
        with pytest.raises(ValueError, match=words):
            eval_batches(Numbered(50), 8, number)
