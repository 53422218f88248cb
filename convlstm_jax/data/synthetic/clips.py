"""What all sources of synthetic clips have in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from convlstm_jax.data.base import DataConfig
from convlstm_jax.data.sources import SPLITS, Sources, checked_index

ConfigT = TypeVar("ConfigT", bound=DataConfig)

# SplitMix64 (Steele, Lea and Flood 2014), written out because NumPy does not promise
# its random streams from one version to the next.
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


@dataclass(frozen=True, eq=False)
class SyntheticClips(Generic[ConfigT]):
    """A random-access source whose clips are generated when they are read.

    A clip depends on the config, what is `given` to the split (such as its digits) and
    (seed, index) alone, in any order and process. `seed` is from 0 to 2**64 - 1.
    """

    config: ConfigT
    num_frames: int
    num_clips: int
    seed: int
    given: Any = None

    def __len__(self) -> int:
        """Returns the number of clips."""
        return self.num_clips

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Generates clip `index`, see `ClipSource`."""
        return self._generate(checked_index(index, len(self)))

    def _generate(self, index: int) -> dict[str, np.ndarray]:
        raise NotImplementedError

    @classmethod
    def splits(
        cls,
        config: ConfigT,
        num_frames: int,
        seed: int,
        description: str,
        given: Sequence[Any] = (None, None, None),
        **facts: Any,
    ) -> Sources:
        """The splits, from what is `given` to each, with further `facts`.

        Validation and test clips depend on neither `seed` nor their own number.
        """
        # Training seeds are below 2**32, so neither stream can be the training stream.
        seeds = (seed, 2**63, 2**63 + 1)
        splits: dict[str, Any] = {}
        for split, own_seed, its_own in zip(SPLITS, seeds, given, strict=True):
            num_clips = getattr(config, f"num_{split}_sequences")
            splits[split] = cls(config, num_frames, num_clips, own_seed, its_own)
        return config.make_sources(splits, description, **facts)
