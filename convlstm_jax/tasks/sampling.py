"""When a recurrent predictor reads true frames in training: schedules and masks."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

SAMPLINGS = ("none", "scheduled", "reverse_scheduled")

Probability = Float[Array, ""]


def scheduled_probability(step: Array | int, end_step: int) -> Probability:
    """Share of true frames among those to forecast: from 1 linearly down to 0.

    Scheduled sampling (Bengio et al. 2015, arXiv:1506.03099) as in PredRNN and OpenSTL,
    which write 1 / `end_step` as a changing rate of 0.00002.

    Args:
      step: training steps taken before.
      end_step: step from which on it is 0.
    """
    return jnp.clip(1 - step / end_step, 0.0, 1.0)


def reverse_input_probability(
    step: Array | int, start_step: int, end_step: int, decay_steps: int
) -> Probability:
    """Share of true frames among those given: from one half up to 1.

    The encoder's half of reverse scheduled sampling (Wang et al. 2021,
    arXiv:2103.09504): 1 − ½ exp(−(step − `start_step`) / `decay_steps`).

    Args:
      step: training steps taken before.
      start_step: step up to which it stays one half.
      end_step: step from which on it is 1.
      decay_steps: steps in which the distance to 1 falls by a factor of e.
    """
    since_start = jnp.maximum(step - start_step, 0)
    rising = 1 - 0.5 * jnp.exp(-since_start / decay_steps)
    return jnp.where(step < end_step, rising, 1.0)


def reverse_forecast_probability(
    step: Array | int, start_step: int, end_step: int
) -> Probability:
    """Share of true frames among those to forecast: from one half linearly down to 0.

    The forecaster's half of reverse scheduled sampling as in PredRNN and OpenSTL.

    Args:
      step: training steps taken before.
      start_step: step up to which it stays one half.
      end_step: step from which on it is 0.
    """
    return jnp.clip(0.5 * (end_step - step) / (end_step - start_step), 0.0, 0.5)


@dataclass(frozen=True)
class Sampling:
    """Which frames a recurrent predictor reads in training.

    Attributes:
      name: "none" (the given frames are read, never one that is to be forecast),
        "scheduled" or "reverse_scheduled", in which given frames may be replaced too.
      end_step: training step from which on the frames given are all read and none
        else, as in a forecast.
      reverse_start_step: "reverse_scheduled": step up to which each frame is read with
        a probability of one half.
      reverse_decay_steps: see `reverse_input_probability`.

    Raises:
      ValueError: an unknown name, or a reverse schedule that ends before it starts.
    """

    name: str = "none"
    end_step: int = 50_000
    reverse_start_step: int = 25_000
    reverse_decay_steps: int = 5_000

    def __post_init__(self):
        """Refuses what is no schedule."""
        if self.name not in SAMPLINGS:
            raise ValueError(f"name is {self.name!r}: it must be one of {SAMPLINGS}")
        if self.name == SAMPLINGS[2] and self.reverse_start_step >= self.end_step:
            raise ValueError(
                f"reverse_start_step is {self.reverse_start_step}: it must be less "
                f"than end_step, which is {self.end_step}"
            )

    def probabilities(self, step: Array | int) -> tuple[Probability, Probability]:
        """The probabilities that a given frame, and one to forecast, is read."""
        if self.name == "scheduled":
            return jnp.float32(1), scheduled_probability(step, self.end_step)
        if self.name == "reverse_scheduled":
            start, end = self.reverse_start_step, self.end_step
            return (
                reverse_input_probability(step, start, end, self.reverse_decay_steps),
                reverse_forecast_probability(step, start, end),
            )
        return jnp.float32(1), jnp.float32(0)

    def takes_truth(
        self,
        key: Array,
        step: Array | int,
        batch_size: int,
        num_input_frames: int,
        num_output_frames: int,
    ) -> Bool[Array, "B S"]:
        """Draws, for each clip and step of the roll-out, whether the frame is read.

        Args:
          key: randomness of the training step; the same key gives the same draw.
          step: training steps taken before.
          batch_size: B.
          num_input_frames: frames given; the first is always read.
          num_output_frames: frames to forecast, of which all but the last may be read.

        Returns:
          `[B, S]` with S = inputs + outputs − 1.
        """
        given, forecast = self.probabilities(step)
        steps = jnp.arange(num_input_frames + num_output_frames - 1)
        probability = jnp.where(steps < num_input_frames, given, forecast)
        probability = jnp.where(steps == 0, 1.0, probability)
        draw = jax.random.uniform(key, (batch_size, len(steps)))
        return draw < probability[None, :]


def forecast_takes_truth(
    batch_size: int, num_input_frames: int, num_output_frames: int
) -> Bool[Array, "B S"]:
    """What a forecast reads: the frames given, then its own predictions."""
    steps = jnp.arange(num_input_frames + num_output_frames - 1)
    return jnp.broadcast_to(steps < num_input_frames, (batch_size, len(steps)))
