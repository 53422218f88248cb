import math

import pytest

from convlstm_jax.training.early_stopping import EarlyStopping


def after(values):
    state = EarlyStopping()
    for step, value in enumerate(values, start=1):
        state = state.update(10 * step, value)
    return state


@pytest.mark.parametrize(
    ("values", "best_value", "best_step", "count"),
    [
        ([3.0, 2.0, 2.5], 2.0, 20, 1),
        ([3.0, 3.0, 3.0], 3.0, 10, 2),  # equal is no improvement
        ([math.nan, 2.0, math.nan], 2.0, 20, 1),
        ([math.nan, math.nan], None, None, 2),
        ([math.inf, 1.0], 1.0, 20, 0),
        ([math.inf, math.inf], None, None, 2),
    ],
)
def test_update(values, best_value, best_step, count):
    assert after(values).model_dump() == {
        "best_value": best_value,
        "best_step": best_step,
        "evaluations_without_improvement": count,
    }


def test_should_stop_after_exactly_patience_evaluations():
    state = after([1.0, 2.0])
    assert not state.should_stop(2)
    state = state.update(30, 2.0)
    assert state.should_stop(2)
    assert not state.should_stop(3)
    assert not state.update(40, 0.5).should_stop(2)


def test_patience_zero_never_stops():
    assert not after([1.0] * 50).should_stop(0)


def test_json_round_trip_continues_the_count():
    state = after([0.1 + 0.2, math.nan, 0.7])
    copy = EarlyStopping.model_validate_json(state.model_dump_json())
    assert copy == state
    assert copy.update(40, 1.0) == state.update(40, 1.0)
