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


def take(iterator, count):
    try:
        return [next(iterator) for _ in range(count)]
    finally:
        iterator.close()


def labels(batches):
    return np.stack([batch["label"] for batch in batches])


def test_batches_are_whole_clips():
    batch = take(train_batches(Numbered(50), 8, seed=0), 1)[0]
    assert batch["frames"].shape == (8, 2, 3, 4, 1)
    assert batch["frames"].dtype == np.uint8
    np.testing.assert_array_equal(batch["frames"][:, 1, 2, 3, 0], batch["label"])


def test_every_epoch_is_a_new_permutation():
    # 24 clips, batches of 10: epochs end inside batches.
    order = labels(take(train_batches(Numbered(24), 10, seed=0), 12)).ravel()
    epochs = order.reshape(5, 24)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(24))
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert not np.array_equal(epochs[0], np.arange(24))


@pytest.mark.parametrize("length", [1, 2, 50])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("start_step", [0, 1, 100_000])
def test_the_smallest_batches_and_sources(length, batch_size, start_step):
    batches = train_batches(Numbered(length), batch_size, 0, start_step)
    order = labels(take(batches, 3))
    assert order.shape == (3, batch_size)
    whole = train_batches(Numbered(length), 6, 0, start_step * batch_size // 6)
    first = start_step * batch_size % 6
    expected = labels(take(whole, 3)).ravel()[first : first + 3 * batch_size]
    np.testing.assert_array_equal(order.ravel(), expected)


def test_order_depends_on_the_seed_alone():
    first = labels(take(train_batches(Numbered(50), 8, seed=1), 5))
    again = labels(take(train_batches(Numbered(50), 8, seed=1), 5))
    other = labels(take(train_batches(Numbered(50), 8, seed=2), 5))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("prefetch_batches", [0, 1, 5])
def test_prefetching_changes_nothing(prefetch_batches):
    np.testing.assert_array_equal(
        labels(
            take(
                train_batches(
                    Numbered(50), 8, seed=1, prefetch_batches=prefetch_batches
                ),
                9,
            )
        ),
        labels(take(train_batches(Numbered(50), 8, seed=1), 9)),
    )


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_the_same_global_batch(process_count):
    whole = labels(take(train_batches(Numbered(50), 8, seed=1), 9))
    parts = [
        labels(
            take(
                train_batches(
                    Numbered(50),
                    8,
                    seed=1,
                    process_index=index,
                    process_count=process_count,
                ),
                9,
            )
        )
        for index in range(process_count)
    ]
    assert parts[0].shape == (9, 8 // process_count)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("start_step", [0, 1, 7, 100_000])
def test_resuming_gives_the_same_batches(start_step):
    first = max(0, start_step - 3)
    run = take(train_batches(Numbered(50), 8, seed=1, start_step=first), 8)
    resumed = take(
        train_batches(
            Numbered(50),
            8,
            seed=1,
            start_step=start_step,
            process_index=1,
            process_count=2,
        ),
        4,
    )
    skipped = start_step - first
    for batch, expected in zip(resumed, run[skipped : skipped + 4], strict=True):
        np.testing.assert_array_equal(batch["frames"], expected["frames"][4:])


def add_noise(clip, rng):
    """An augmentation that tells which clip was drawn for, and with which numbers."""
    return clip | {"frames": clip["frames"] + rng.random()}


def augmented(count, **arguments):
    batches = take(
        train_batches(Numbered(12), 8, seed=1, augment=add_noise, **arguments), count
    )
    return np.stack([batch["frames"][:, 0, 0, 0, 0] for batch in batches])


def test_augmentation_draws_anew_for_each_clip_of_each_epoch():
    frames = augmented(6)
    plain = labels(take(train_batches(Numbered(12), 8, seed=1), 6))
    np.testing.assert_array_equal(np.floor(frames), plain)  # The order is as without.
    assert len(np.unique(frames - plain)) == 48


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_the_same_augmented_batch(process_count):
    parts = [
        augmented(6, process_index=index, process_count=process_count)
        for index in range(process_count)
    ]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), augmented(6))


@pytest.mark.parametrize("start_step", [1, 4])
def test_resuming_gives_the_same_augmented_batches(start_step):
    resumed = augmented(3, start_step=start_step, prefetch_batches=0)
    np.testing.assert_array_equal(resumed, augmented(start_step + 3)[start_step:])


def test_augmentation_depends_on_the_seed():
    other = take(train_batches(Numbered(12), 8, seed=2, augment=add_noise), 6)
    noise = np.stack([batch["frames"][:, 0, 0, 0, 0] for batch in other]) % 1
    assert not np.intersect1d(noise, augmented(6) % 1).size


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
@pytest.mark.parametrize(("num_workers", "augment"), [(1, None), (2, add_noise)])
def test_workers_change_nothing(parsed_flags, num_workers, augment):
    expected = take(
        train_batches(Numbered(50), 8, seed=1, start_step=3, augment=augment), 5
    )
    batches = take(
        train_batches(
            Numbered(50),
            8,
            seed=1,
            start_step=3,
            num_workers=num_workers,
            prefetch_batches=1,
            augment=augment,
        ),
        5,
    )
    for batch, other in zip(batches, expected, strict=True):
        assert type(batch["frames"]) is np.ndarray
        np.testing.assert_array_equal(batch["frames"], other["frames"])
        np.testing.assert_array_equal(batch["label"], other["label"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 7, "process_count": 2}, "batch_size is 7: .* processes, 2"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"process_index": 2, "process_count": 2}, "process_index is 2"),
        ({"process_count": 0}, "process_count 0"),
        ({"start_step": -1}, "start_step is -1"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"prefetch_batches": -1}, "prefetch_batches is -1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_wrong_arguments_of_training(wrong, message):
    with pytest.raises(ValueError, match=message):
        train_batches(Numbered(50), **({"batch_size": 8, "seed": 0} | wrong))


def test_evaluation_is_in_order_and_padded():
    batches = list(eval_batches(Numbered(50), 8, 19))
    assert len(batches) == 3
    assert all(batch["frames"].shape == (8, 2, 3, 4, 1) for batch in batches)
    weight = np.concatenate([batch["weight"] for batch in batches])
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight, np.arange(24) < 19)
    # The padding repeats the last clip.
    np.testing.assert_array_equal(
        labels(batches).ravel(), np.minimum(np.arange(24), 18)
    )


def test_evaluation_without_remainder_has_no_padding():
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


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_sequences": 51}, "num_sequences is 51: it must be from 1 to 50"),
        ({"num_sequences": 0}, "num_sequences is 0"),
        ({"batch_size": 9, "process_count": 2}, "batch_size is 9"),
        ({"prefetch_batches": -1}, "prefetch_batches is -1"),
    ],
)
def test_wrong_arguments_of_evaluation(wrong, message):
    arguments = {"batch_size": 8, "num_sequences": 20} | wrong
    with pytest.raises(ValueError, match=message):
        eval_batches(Numbered(50), **arguments)
