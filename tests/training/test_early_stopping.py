import json
import math

import pytest

from convlstm_jax.training.early_stopping import EarlyStopping


def after(values, **fields):
    state = EarlyStopping(**fields)
    for step, value in enumerate(values, start=1):
        state = state.update(10 * step, value)
    return state


@pytest.mark.parametrize(
    ("higher_is_better", "values", "best_value", "best_step", "count"),
    [
        (False, [3.0, 2.0, 2.5], 2.0, 20, 1),
        (True, [3.0, 2.0, 2.5], 3.0, 10, 2),
        (False, [3.0, 3.0, 3.0], 3.0, 10, 2),  # equal is no improvement
        (False, [math.nan, 2.0, math.nan], 2.0, 20, 1),
        (True, [math.nan, math.nan], None, None, 2),
        (False, [math.inf, 1.0], 1.0, 20, 0),
        (False, [math.inf, math.inf], None, None, 2),
        (True, [1.0, math.inf], math.inf, 20, 0),  # the PSNR of a perfect forecast
    ],
)
def test_update(higher_is_better, values, best_value, best_step, count):
    state = after(values, higher_is_better=higher_is_better)
    assert state == EarlyStopping(higher_is_better, best_value, best_step, count)


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
    values = [0.1 + 0.2, math.nan, 0.7]
    state = after(values)
    copy = EarlyStopping.from_json(json.loads(json.dumps(state.to_json())))
    assert copy == state
    assert copy.update(40, 1.0) == state.update(40, 1.0)


def test_json_of_another_version_is_refused():
    with pytest.raises(ValueError, match=r"has the fields \['best'\]"):
        EarlyStopping.from_json({"best": 1.0})
