"""What is said before training begins."""

from types import SimpleNamespace

import numpy as np
import pytest

from convlstm_jax.cli import train


def warnings_of(caplog, *shown):
    """The warnings where so many of some clips show anything."""
    clips = [np.full((2, 4, 4, 1), 255, np.uint8) for _ in shown]
    for clip, is_shown in zip(clips, shown, strict=True):
        clip[1, 0, 0] = 0 if is_shown else 255
    sources = SimpleNamespace(train=[{"frames": clip} for clip in clips])
    train._warn_of_blank_clips(sources)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("shown", [(False, True, False, False), (False,)])
def test_clips_in_which_nothing_is_visible(caplog, shown):
    (warning,) = warnings_of(caplog, *shown)
    assert "is config.data.value_range that of the files" in warning


@pytest.mark.parametrize("shown", [(True, False, False), (False, False, False, True)])
def test_clips_in_which_something_is(caplog, shown):
    assert not warnings_of(caplog, *shown)
