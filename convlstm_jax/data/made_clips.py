"""What sources have in common whose clips the program makes when they are read."""

from convlstm_jax.errors import UserError

# Training seeds are below 2**32, so neither stream can be the training stream.
VALIDATION_SEED = 2**63
TEST_SEED = 2**63 + 1


class MadeClips:
    """The length, the shape and the seed of a source that makes its clips.

    Args:
      num_sequences: length of the source.
      num_frames: frames per sequence, T.
      height: frame height H, pixels.
      width: frame width W, pixels.
      seed: names the stream of sequences, 0 <= seed < 2**64.
      least_size: fewest pixels of height and width.

    Raises:
      UserError: an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        num_sequences: int,
        num_frames: int,
        height: int,
        width: int,
        seed: int,
        *,
        least_size: int = 1,
    ) -> None:
        for name, value, least in (
            ("num_sequences", num_sequences, 1),
            ("num_frames", num_frames, 1),
            ("height", height, least_size),
            ("width", width, least_size),
        ):
            if value < least:
                raise UserError(f"{name} is {value}, but must be at least {least}.")
        if not 0 <= seed < 2**64:
            raise UserError(f"seed is {seed}, but must be in 0 .. 2**64 - 1.")
        self._num_sequences = int(num_sequences)
        self._num_frames = int(num_frames)
        self._height = int(height)
        self._width = int(width)
        self._seed = int(seed)

    def __len__(self) -> int:
        """Returns the number of sequences."""
        return self._num_sequences

    def _in_range(self, index: int) -> int:
        """Returns the index as a plain integer.

        Raises:
          IndexError: there is no such sequence.
        """
        index = int(index)
        if not 0 <= index < self._num_sequences:
            raise IndexError(
                f"Sequence {index} is out of range: the source holds "
                f"{self._num_sequences} sequences."
            )
        return index
