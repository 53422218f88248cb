"""What all sources of synthetic clips have in common."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from convlstm_jax.data.base import DataConfig
from convlstm_jax.data.sources import ClipSource, checked_index
from convlstm_jax.errors import UserError

ConfigT = TypeVar("ConfigT", bound=DataConfig)

# Training seeds are below 2**32, so neither stream can be the training stream.
VALIDATION_SEED = 2**63
TEST_SEED = 2**63 + 1

# SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
# generators"). It is written out here because NumPy does not promise its random
# streams from one version to the next, and the sequences must never change.
_MASK = (1 << 64) - 1
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15


def _mix(bits: int) -> int:
    """The output function of SplitMix64."""
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)


def uniform_draws(seed: int, index: int, count: int) -> list[float]:
    """Draws numbers uniform in [0, 1) that depend on (seed, index) alone.

    The first ones do not depend on `count`; each is a multiple of 2**-53.
    """
    state = _mix((_mix((seed + _GOLDEN_GAMMA) & _MASK) + index) & _MASK)
    draws = []
    for _ in range(count):
        state = (state + _GOLDEN_GAMMA) & _MASK
        draws.append((_mix(state) >> 11) * 2.0**-53)
    return draws


class SyntheticClips(Generic[ConfigT]):
    """A random-access source whose clips are generated when they are read.

    A clip depends on the config, what is `given` to the split (such as its digits) and
    (seed, index) alone, in any order and process. `seed` is from 0 to 2**64 - 1.
    """

    def __init__(
        self,
        config: ConfigT,
        num_frames: int,
        num_clips: int,
        seed: int,
        given: Any = None,
    ) -> None:
        self._config = config
        self._num_frames = num_frames
        self._num_clips = num_clips
        self._seed = seed
        self._given = given

    def __len__(self) -> int:
        """Returns the number of clips."""
        return self._num_clips

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Generates clip `index`, see `ClipSource`."""
        return self._generate(checked_index(index, len(self)))

    def _generate(self, index: int) -> dict[str, np.ndarray]:
        raise NotImplementedError


def generated_splits(
    config: DataConfig,
    seed: int,
    generate: Callable[..., ClipSource],
    given: Sequence[Any] = (None, None, None),
) -> dict[str, Any]:
    """The three splits of a data set that is generated, and their shape.

    `generate` makes a source of a number of clips, a seed, and what is given to the
    split. Validation and test clips depend on neither `seed` nor their own number.

    Raises:
        UserError: `seed` is not from 0 to 2**32 - 1.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed}: it must be from 0 to 2**32 - 1")
    height, width, channels = config.frame_shape
    train, validation, test = given
    return {
        "train": generate(config.num_train_sequences, seed, train),
        "validation": generate(
            config.num_validation_sequences, VALIDATION_SEED, validation
        ),
        "test": generate(config.num_test_sequences, TEST_SEED, test),
        "height": height,
        "width": width,
        "channels": channels,
    }
