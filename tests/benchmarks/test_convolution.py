import pytest

from benchmarks import convolution


@pytest.mark.slow
def test_all_variants_compute_the_same_and_are_listed(monkeypatch):
    monkeypatch.setitem(convolution.SHAPES, "tiny", (1, 6, 5, 8, 3))
    table = convolution.measure("tiny", num_rounds=1)
    rows = [line.split("|")[1].strip() for line in table.splitlines()[4:]]
    assert rows == [
        "direct", "direct, at once", "tiles of 2", "tiles of 4", "padded", "two layers",
        "diagonal",
    ]  # fmt: skip
    assert "| direct |" in table and table.count(" 1.00 |") >= 1


def test_mistakes(capsys):
    for argument in ("--rounds=0", "--fusions=FAST"):
        with pytest.raises(SystemExit, match="2"):
            convolution.main([argument])
    printed = capsys.readouterr().err
    assert "--rounds is 0: it must be at least 1" in printed
    assert "invalid choice: 'FAST'" in printed
