"""Where clips come from: what a source is, and the moving digits and squares."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from convlstm_jax.data.digits import DigitsName, load_digits
from convlstm_jax.data.made_clips import TEST_SEED, VALIDATION_SEED
from convlstm_jax.data.moving_mnist import MovingMNIST, MovingMNISTFile
from convlstm_jax.data.moving_squares import MovingSquares
from convlstm_jax.errors import UserError


class ClipSource(Protocol):
    """A source of clips with random access; what the input pipeline reads.

    A source is deterministic (the same index gives the same clip, in any process) and
    can be pickled, since worker processes receive a copy of it.
    """

    @property
    def clip_names(self) -> Sequence[str] | None:
        """A name for each clip: its film or event, and where in it; None: no names.

        A path is relative to the data folder: `slow/run1.mp4, frames 20-39`.
        """
        ...

    def __len__(self) -> int:
        """Returns the number of clips."""
        ...

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Returns clip `index` of `len(self)`.

        Returns:
            {"frames": uint8 or float32 `[T, H, W, C]`}; every clip of a source has the
            same keys, shapes and types. A source may add "label" and "condition",
            int32 indices into the names in `Sources`; "mask", uint8 `[T, H, W, 1]`, 1
            where there is data; and, where its frames are noisy, "targets", the same
            frames without noise.
        """
        ...


@dataclass(frozen=True, eq=False)
class Sources:
    """The three splits of a data set.

    Attributes:
        train: training clips.
        validation: validation clips, the same ones whatever the seed.
        test: test clips, the same ones whatever the seed.
        description: a sentence or two that tell where the data come from, with any
            stand-in for the data asked for.
        height: frame height H, pixels.
        width: frame width W, pixels.
        channels: C.
        digits_source: for moving digits, which digits: "idx", "tfds" or "sklearn"; ""
            for other data sets.
        conditions: names of the conditions clips were taken under (a flow rate, a
            folder), to which a clip's "condition" is the index; empty where clips have
            none.
        classes: names of the classes, to which a clip's "label" is the index; empty
            where clips have none.
        class_counts: training clips of each class.
    """

    train: ClipSource
    validation: ClipSource
    test: ClipSource
    description: str
    height: int
    width: int
    channels: int
    digits_source: str = ""
    conditions: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()


def moving_mnist_sources(
    *,
    num_frames: int,
    seed: int,
    digits: DigitsName = "auto",
    digits_dir: str = "",
    tfds_dir: str = "",
    height: int = 64,
    width: int = 64,
    num_digits: int = 2,
    velocity: float = 0.1,
    num_train_sequences: int = 10_000_000,
    num_validation_sequences: int = 1000,
    num_test_sequences: int = 10_000,
    test_file: str = "",
) -> Sources:
    """Moving MNIST (arXiv:1502.04681), each split from digits of its own.

    Validation and test sequences are fixed: they depend on neither the seed nor their
    own number (the first ones of a longer split are those of a shorter one).

    Args:
      num_frames: frames per sequence, input and output together.
      seed: names the stream of training sequences, 0 <= seed < 2**32.
      digits: where the digits come from, see `load_digits`.
      digits_dir: folder of IDX files, see `load_digits`.
      tfds_dir: cache folder of tensorflow-datasets, see `load_digits`.
      height: frame height in pixels.
      width: frame width in pixels.
      num_digits: digits per sequence.
      velocity: canvas fractions per frame.
      num_train_sequences: length of an epoch.
      num_validation_sequences: length of the validation split.
      num_test_sequences: length of the test split.
      test_file: path of the published `mnist_test_seq.npy`; where given, its first
        `num_test_sequences` sequences are the test split.

    Returns:
      The splits.

    Raises:
      UserError: the digits or the test file cannot be read.
      ValueError: another argument is out of its range; the message names it.
    """
    check_seed_and_counts(
        seed, num_train_sequences, num_validation_sequences, num_test_sequences
    )
    if test_file and (height, width, num_digits) != (64, 64, 2):
        raise UserError(
            f"test_file is {test_file!r}, whose frames are 64x64 with two digits, but "
            f"height, width and num_digits are {height}, {width} and {num_digits}."
        )
    digit_set = load_digits(digits, digits_dir, tfds_dir)

    def generated(images: np.ndarray, count: int, seed: int) -> MovingMNIST:
        return MovingMNIST(
            images, count, num_frames, height, width, num_digits, velocity, seed
        )

    train = generated(digit_set.train, num_train_sequences, seed)
    validation = generated(
        digit_set.validation, num_validation_sequences, VALIDATION_SEED
    )
    test: ClipSource
    if test_file:
        test = MovingMNISTFile(test_file, num_frames, num_test_sequences)
        test_description = f"test sequences from {test_file}"
    else:
        test = generated(digit_set.test, num_test_sequences, TEST_SEED)
        test_description = "test sequences generated"
    return Sources(
        train=train,
        validation=validation,
        test=test,
        description=(
            f"Moving MNIST, {num_digits} {'digit' if num_digits == 1 else 'digits'} on "
            f"{height}x{width}, {test_description}. Digits: {digit_set.description}"
        ),
        digits_source=digit_set.source,
        height=height,
        width=width,
        channels=1,
    )


def moving_squares_sources(
    *,
    num_frames: int,
    seed: int,
    height: int = 40,
    width: int = 40,
    num_train_sequences: int = 950,
    num_validation_sequences: int = 50,
    num_test_sequences: int = 1000,
) -> Sources:
    """Moving squares with noise, the films of Keras's first ConvLSTM example.

    Validation and test sequences are fixed, as those of Moving MNIST are.

    Args:
      num_frames: frames per sequence, input and output together.
      seed: names the stream of training sequences, 0 <= seed < 2**32.
      height: frame height in pixels.
      width: frame width in pixels.
      num_train_sequences: length of an epoch.
      num_validation_sequences: length of the validation split.
      num_test_sequences: length of the test split.

    Returns:
      The splits, whose clips have noisy "frames" and clean "targets".

    Raises:
      UserError: an argument is out of its range; the message names it.
    """
    check_seed_and_counts(
        seed, num_train_sequences, num_validation_sequences, num_test_sequences
    )

    def generated(count: int, seed: int) -> MovingSquares:
        return MovingSquares(count, num_frames, height, width, seed)

    return Sources(
        train=generated(num_train_sequences, seed),
        validation=generated(num_validation_sequences, VALIDATION_SEED),
        test=generated(num_test_sequences, TEST_SEED),
        description=(
            f"Moving squares, 3 to 7 on {height}x{width}, all sequences generated; "
            "noise in the frames given, none in those to be predicted."
        ),
        height=height,
        width=width,
        channels=1,
    )


def check_seed_and_counts(
    seed: int,
    num_train_sequences: int,
    num_validation_sequences: int,
    num_test_sequences: int,
) -> None:
    """Raises a `UserError` that names what is out of its range."""
    if not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed}, but must be in 0 .. 2**32 - 1.")
    for name, count in (
        ("num_train_sequences", num_train_sequences),
        ("num_validation_sequences", num_validation_sequences),
        ("num_test_sequences", num_test_sequences),
    ):
        if count < 1:
            raise UserError(f"{name} is {count}, but must be at least 1.")
