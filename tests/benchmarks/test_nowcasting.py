import pytest

from benchmarks import nowcasting
from tests.composites import write_composites


def test_the_table_has_ratios_to_the_better_peer():
    peers = {"model": 3.0, "optical_flow": 4.0, "s_prog": 6.0}
    metrics = [*nowcasting._METRICS.values(), *nowcasting._BIASES.values()]
    result = {
        "per_lead_time": {
            name: {metric: [value, value / 2] for metric in metrics}
            for name, value in peers.items()
        }
    }
    lines = nowcasting.table(result, [10], 5).splitlines()
    assert lines[0] == "| metric |  | 10 min |"
    assert "| MSE | **ratio** | **0.750** |" in lines  # 3 / 4, the smaller error
    assert "| CSI 2 | **ratio** | **0.500** |" in lines  # 3 / 6, the larger score
    assert "| bias 2 | s_prog | 3.000 |" in lines
    assert sum("ratio" in line for line in lines) == 3


def test_the_table_of_an_ensemble_has_its_crps_beside_that_of_steps():
    peers = {"model": 3.0, "optical_flow": 4.0, "s_prog": 6.0, "steps": 2.0}
    metrics = [*nowcasting._METRICS.values(), *nowcasting._BIASES.values(), "crps"]
    of_all = {
        name: {metric: [value] for metric in metrics} for name, value in peers.items()
    }
    of_all["model"]["spread_error_ratio"] = [0.9]
    of_all["optical_flow"]["spread_error_ratio"] = [None]  # Of one member.
    lines = nowcasting.table({"per_lead_time": of_all}, [5], 5).splitlines()
    assert "| CRPS | **ratio** | **1.500** |" in lines  # 3 / 2
    assert "| MSE | **ratio** | **0.750** |" in lines  # Not to STEPS.
    assert [line for line in lines if "spread" in line] == [
        "| spread / error | model | 0.900 |"
    ]


def test_events_of_one_date_are_refused(tmp_path, capsys):
    for name in ("a", "b"):
        write_composites(tmp_path / name, "201609281445", 3)
    folders = f"--folders={tmp_path / 'a'},{tmp_path / 'b'}"
    with pytest.raises(SystemExit):
        nowcasting.main([folders, "--pixel_size_km=1"])
    assert "must differ: 2016-09-28, 2016-09-28" in capsys.readouterr().err
