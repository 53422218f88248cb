"""h_t = a_t∘h_{t−1} + b_t for all t at once, in about log₂ T steps, and its gradient.

G. Blelloch 1990, "Prefix Sums and Their Applications": a step is the pair (a, b), and
(a, b) followed by (c, d) is the pair (c∘a, c∘b + d), which is associative.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from convlstm_jax.types import Array

States = Float[Array, "B T *S"]
State = Float[Array, "B *S"]


def linear_recurrence(
    a: States, b: States, initial: State, *, reverse: bool = False
) -> States:
    """All h_t from the state before the first step; from the last one if `reverse`."""
    first = -1 if reverse else 0
    b = b.at[:, first].add(a[:, first] * initial)
    _, states = lax.associative_scan(_then, (a, b), axis=1, reverse=reverse)
    return states


def linear_recurrence_gradient(
    a: States, initial: State, states: States, gradient: States, *, reverse: bool
) -> tuple[States, States, State]:
    """The gradients of a, b and the initial state from that of the states.

    That of b is the same recurrence backwards: λ_t = gradient_t + a_{t+1}∘λ_{t+1}.
    """
    first = -1 if reverse else 0
    # The last step has none after it, and what is read there meets a state of zero.
    b_gradient = linear_recurrence(
        jnp.roll(a, 1 if reverse else -1, axis=1),
        gradient,
        jnp.zeros_like(initial),
        reverse=not reverse,
    )
    before = jnp.roll(states, -1 if reverse else 1, axis=1)
    before = before.at[:, first].set(initial)
    initial_gradient = a[:, first] * b_gradient[:, first]
    return b_gradient * before, b_gradient, initial_gradient


def _then(step: tuple[Array, Array], later: tuple[Array, Array]) -> tuple[Array, Array]:
    (a, b), (c, d) = step, later
    return c * a, c * b + d
