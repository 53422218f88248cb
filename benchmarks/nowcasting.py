"""Nowcasts of rain that the network has not seen, beside those of pysteps.

    pip install -r requirements-radar.txt
    python benchmarks/nowcasting.py --folders=fmi/20160928,fmi/20170509,knmi,mch

Each folder holds one event. For each, a network is trained on all others and measured
on all composites of this one, the whole area, beside pysteps' optical flow and S-PROG,
and with `--preset=ensemble` beside STEPS with as many members; dates of events must
differ. Printed are the figures by lead time and, of MSE and CSI, the ratio to the
better of the first two, of the CRPS that to STEPS: MSE and CRPS below 1 and CSI above 1
are better. A run that has ended is not repeated.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

# Run as a script, the repository is not on the path unless it is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import machine_line
from convlstm_jax.data.radar.config import RadarConfig, date_of
from convlstm_jax.data.radar.folder import open_folder

_ROOT = Path(__file__).resolve().parent.parent
_METRICS = {"MSE": "mse", "CSI 0.5": "csi_0.5_mm_per_h", "CSI 2": "csi_2_mm_per_h"}
_BIASES = {"bias 0.5": "bias_0.5_mm_per_h", "bias 2": "bias_2_mm_per_h"}
_OF_ENSEMBLES = {"CRPS": "crps", "spread / error": "spread_error_ratio"}
_PEERS: dict[str, tuple[str, ...]] = dict.fromkeys(
    _METRICS.values(), ("optical_flow", "s_prog")
)
_PEERS["crps"] = ("steps",)


def main_py(*options: str) -> None:
    """Runs main.py."""
    subprocess.run([sys.executable, "main.py", *options], cwd=_ROOT, check=True)


def date_in(folder: Path, pixel_size_km: float) -> str:
    """The date of the event in a folder."""
    config = RadarConfig(path=str(folder), pixel_size_km=pixel_size_km)
    return date_of(max(open_folder(str(folder), config).runs, key=len))


def measured(
    folder: Path, date: str, parsed: argparse.Namespace, options: list[str]
) -> dict[str, Any]:
    """The evaluation of an event by a network that was trained on all others."""
    workdir = parsed.workdir / date
    if not (workdir / "evaluation.json").exists():
        main_py(
            f"--config=configs/radar_nowcasting.py:{parsed.preset}",
            f"--workdir={workdir}",
            f"--config.data.path={','.join(map(str, parsed.folders))}",
            f"--config.data.pixel_size_km={parsed.pixel_size_km:g}",
            f"--config.data.test_conditions={date}",
            *options,
        )
    found = workdir / f"evaluation_{folder.name}.json"
    if not found.exists():
        every = f"--every={parsed.every}"
        main_py("--mode=evaluate", f"--workdir={workdir}", f"--input={folder}", every)
    result: dict[str, Any] = json.loads(found.read_text())
    return result


def table(result: dict[str, Any], minutes: list[int], minutes_per_frame: int) -> str:
    """An event's figures by lead time, and their ratios to the better peer's."""
    lead_times = [m // minutes_per_frame - 1 for m in minutes]
    by_contender = result["per_lead_time"]
    rows = [["metric", "", *(f"{m} min" for m in minutes)]]
    for label, metric in (_METRICS | _BIASES | _OF_ENSEMBLES).items():
        of_metric = {k: of[metric] for k, of in by_contender.items() if metric in of}
        for name, course in of_metric.items():
            values = [course[i] for i in lead_times]
            if None not in values:
                rows.append([label, name, *(f"{value:.3f}" for value in values)])
        if of_metric and (peers := _PEERS.get(metric)):
            best = max if metric.startswith("csi") else min
            ratios = [
                of_metric["model"][i] / best(of_metric[peer][i] for peer in peers)
                for i in lead_times
            ]
            rows.append([label, "**ratio**", *(f"**{one:.3f}**" for one in ratios)])
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: list[str] | None = None) -> int:
    """Trains and measures, one event after the other, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folders", required=True, help="of one event each, by commas")
    parser.add_argument("--workdir", type=Path, default=Path("runs/nowcasting"))
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--pixel_size_km", type=float, default=4)
    parser.add_argument("--every", type=int, default=3, help="of the start times")
    parser.add_argument("--minutes", default="15,30,45,60", help="lead times")
    parser.add_argument("--minutes_per_frame", type=int, default=5)
    parsed, options = parser.parse_known_args(arguments)
    parsed.folders = [Path(one).resolve() for one in parsed.folders.split(",")]
    parsed.workdir = parsed.workdir.resolve()
    minutes = [int(one) for one in parsed.minutes.split(",")]
    dates = [date_in(folder, parsed.pixel_size_km) for folder in parsed.folders]
    if len(set(dates)) < len(dates):
        parser.error(f"--folders: dates of the events must differ: {', '.join(dates)}")
    for folder, date in zip(parsed.folders, dates, strict=True):
        result = measured(folder, date, parsed, options)
        print(f"\n**{date}**, {result['data']['description']}\n")
        print(table(result, minutes, parsed.minutes_per_frame), flush=True)
    print(f"\n{machine_line(('jax', 'pysteps'))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
