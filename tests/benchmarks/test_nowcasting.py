import numpy as np
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
    lines = nowcasting.table(result, [10], [1]).splitlines()
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
    lines = nowcasting.table({"per_lead_time": of_all}, [5], [0]).splitlines()
    assert "| CRPS | **ratio** | **1.500** |" in lines  # 3 / 2
    assert "| MSE | **ratio** | **0.750** |" in lines  # Not to STEPS.
    assert [line for line in lines if "spread" in line] == [
        "| spread / error | model | 0.900 |"
    ]


def test_gains_are_to_the_better_peer():
    of = {"mse": [1.0, 2.0], "csi_0.5_mm_per_h": [0.4, 0.5], "csi_2_mm_per_h": [1, 1]}
    peers = {
        "optical_flow": {**of, "mse": [9.0, 4.0], "csi_0.5_mm_per_h": [1.0, 0.25]},
        "s_prog": {**of, "mse": [9.0, 8.0], "csi_0.5_mm_per_h": [1.0, 0.2]},
    }
    gains = nowcasting.gains(of, peers, [1])
    np.testing.assert_allclose(gains, [np.log(2), np.log(2), 0])


def test_shares_are_chosen_by_figures_ahead_and_then_by_the_mean(capsys):
    few, many, more = (0.0, 0.4), (0.5, 0.4), (1.0, 0.4)
    one = {few: np.array([9.0, -1.0]), many: np.array([0.1, 0.1]), more: np.ones(2)}
    other = {few: np.array([9.0, 9.0]), many: np.ones(2), more: np.array([0.2, 0.1])}
    assert nowcasting._best([one, other], "an event") == more  # 4 of 4, mean 0.575.
    assert nowcasting._best([other], "an event") == few
    assert "0.5 0.4 4 of 4, 0.5500" in capsys.readouterr().out


def test_events_of_one_date_are_refused(tmp_path, capsys):
    for name in ("a", "b"):
        write_composites(tmp_path / name, "201609281445", 3)
    folders = f"--folders={tmp_path / 'a'},{tmp_path / 'b'}"
    with pytest.raises(SystemExit):
        nowcasting.main([folders, "--pixel_size_km=1"])
    assert "must differ: 2016-09-28, 2016-09-28" in capsys.readouterr().err


def test_all_dates_of_a_folder_are_left_out(tmp_path):
    write_composites(tmp_path, "201609282355", 4)  # Beyond midnight, and again later.
    write_composites(tmp_path, "201705091045", 2)
    write_composites(tmp_path, "201609290500", 2)
    found = nowcasting.dates_in(tmp_path, 1)
    assert found == "2016-09-28,2016-09-29,2017-05-09"
