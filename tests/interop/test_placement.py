import numpy as np
import pytest

from convlstm_jax.interop.placement import ImportReport, Placement


@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 2, 0)])
def test_axes_and_gates_are_brought_into_our_order(axes):
    array = np.random.default_rng(0).normal(size=(8, 8, 8))[:, :, :5].astype(np.float32)
    array = array if axes[0] == 2 else array.transpose(0, 2, 1)
    expected = array.transpose(axes)
    found = Placement("f", {"w": array}).take("w", "t", expected.shape, axes, "ofgi")
    np.testing.assert_array_equal(found[..., :2], expected[..., 6:])  # i is last there.
    np.testing.assert_array_equal(found[..., 6:], expected[..., :2])  # o is first.


def test_the_report_lists_what_was_skipped_under_its_reason():
    report = ImportReport(
        placed=(("x.weight", "params/a"), ("b", "params/b")),
        skipped=(("c", "as no one asks"), ("d", "as old"), ("e", "as no one asks")),
        notes=("all is well",),
    )
    assert report.lines() == [
        "  x.weight -> params/a",
        "  b        -> params/b",
        "not used, as no one asks: c, e",
        "not used, as old: d",
        "all is well",
    ]
