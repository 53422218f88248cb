import pytest

from convlstm_jax.errors import did_you_mean

KNOWN = ("mode", "workdir", "config.train.batch_size", "config.model.name")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mdoe", "mode"),
        ("workdri", "workdir"),
        ("config.trian.batch_size", "config.train.batch_size"),
        ("batch_size", "config.train.batch_size"),
        ("config.model.nmae", "config.model.name"),
    ],
)
def test_the_nearest_name_is_found(name, meant):
    assert did_you_mean(name, KNOWN) == f" (did you mean {meant}?)"


def test_no_hint_where_nothing_is_near():
    assert did_you_mean("zzzzzzz", KNOWN) == ""
    assert did_you_mean("mode", ()) == ""
