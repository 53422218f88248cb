import numpy as np
import pytest

from convlstm_jax.cells.convlstm import GATE_ORDER
from convlstm_jax.errors import UserError
from convlstm_jax.interop.placement import (
    ImportReport,
    Source,
    fill,
    reorder_gates,
)

SHAPES = {"params": {"a": np.zeros((2, 3)), "b": np.zeros(8)}}


@pytest.mark.parametrize("order", ["ifgo", "ifog", "gofi"])
def test_gates_are_found_by_their_letters(order):
    values = {"i": 1, "f": 2, "g": 3, "o": 4}
    array = np.repeat([values[gate] for gate in order], 2)[None]
    expected = np.repeat([values[gate] for gate in GATE_ORDER], 2)[None]
    np.testing.assert_array_equal(reorder_gates(array, order), expected)


def test_axes_and_gates_are_brought_into_our_order():
    array = np.random.default_rng(0).normal(size=(8, 3, 5))
    source = Source("w", array, axes=(2, 1, 0), gate_order="ofgi")
    assert source.expected_shape((5, 3, 8)) == (8, 3, 5)
    found = source.convert()
    assert found.dtype == np.float32
    assert found[4, 1, 0] == np.float32(array[6, 1, 4])  # i is the last two of theirs.
    assert found[4, 1, 7] == np.float32(array[1, 1, 4])  # o is the first two.


def test_axes_that_are_no_reversal():
    array = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    source = Source("w", array, axes=(1, 2, 0))
    assert source.expected_shape((3, 5, 2)) == (2, 3, 5)
    assert source.convert().shape == (3, 5, 2)
    assert source.convert()[2, 4, 1] == array[1, 2, 4]


def test_a_model_is_filled_and_told_from_where():
    arrays = {"params/a": np.arange(6.0).reshape(3, 2), "params/b": np.arange(8.0)}

    def find(path):
        axes = (1, 0) if path == "params/a" else None
        return Source(f"their {path[-1]}", arrays[path], axes)

    variables, placed = fill("w.pth", SHAPES, find)
    np.testing.assert_array_equal(variables["params"]["a"], [[0, 2, 4], [1, 3, 5]])
    np.testing.assert_array_equal(variables["params"]["b"], np.arange(8))
    assert placed == (("their a", "params/a"), ("their b", "params/b"))


def test_all_that_is_wrong_is_told_at_once():
    def find(path):
        array = np.zeros((3, 3)) if path == "params/a" else None
        return Source(path[-1], array, (1, 0) if path == "params/a" else None)

    with pytest.raises(UserError) as caught:
        fill("w.pth", SHAPES, find)
    assert str(caught.value) == (
        "'w.pth' does not fit the model of the config: a has shape (3, 3), expected "
        "(3, 2); b is missing, expected with shape (8,)"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "w has values that are not finite; w has"),
        (np.inf, "w has values that are not finite; w has"),
        (1j, "w has values of type complex128"),
        (True, "w has values of type bool"),
    ],
)
def test_other_values_than_finite_numbers_are_refused(value, message):
    def find(path):
        return Source("w", np.full(SHAPES["params"][path[-1]].shape, value))

    with pytest.raises(UserError, match=message):
        fill("w.pth", SHAPES, find)


def test_the_report_lists_what_was_skipped_under_its_reason():
    report = ImportReport(
        placed=(("x.weight", "params/a"), ("b", "params/b")),
        skipped=(
            ("c", "as no one asks"),
            ("d", "as it is old"),
            ("e", "as no one asks"),
        ),
        notes=("all is well",),
    )
    assert report.lines() == [
        "  x.weight -> params/a",
        "  b        -> params/b",
        "not used, as no one asks: c, e",
        "not used, as it is old: d",
        "all is well",
    ]
