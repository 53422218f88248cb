import math

import pytest

from convlstm_jax.training.ranking import Ranking, best_first


def test_best_first_prefers_the_earliest_among_equals():
    values = {10: 2.0, 20: 1.0, 30: 1.0, 40: 3.0}
    assert best_first(values, higher_is_better=False) == [20, 30, 10, 40]
    assert best_first(values, higher_is_better=True) == [40, 10, 20, 30]


def test_ranking_passes_over_steps_without_the_metric():
    ranking = Ranking("loss", higher_is_better=False, keep_best=1)
    ranking.note(1, {"loss": 3.0, "ssim": 0.1})
    ranking.note(2, None)
    ranking.note(3, {"loss": math.nan})
    ranking.note(4, {"loss": -math.inf})
    assert ranking.ranked([1, 2, 3, 4, 5]) == [4, 1]
    assert ranking.as_json(3) is None
    assert ranking.as_json(1) == {
        "name": "loss",
        "higher_is_better": False,
        "value": 3.0,
    }


def test_ranking_reads_records_of_the_same_metric_only():
    ranking = Ranking("loss", higher_is_better=False, keep_best=1)
    ranking.note_record(1, {"name": "loss", "higher_is_better": False, "value": 2.0})
    ranking.note_record(2, {"name": "ssim", "higher_is_better": True, "value": 1.0})
    ranking.note_record(3, None)
    assert ranking.ranked([1, 2, 3]) == [1]


def test_ranking_wants_its_metric():
    ranking = Ranking("loss", higher_is_better=False, keep_best=1)
    with pytest.raises(ValueError, match=r"must hold 'loss'.*but holds \['ssim'\]"):
        ranking.note(1, {"ssim": 0.5})
