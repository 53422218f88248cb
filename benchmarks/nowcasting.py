"""Nowcasts of rain that the network has not seen, beside those of pysteps.

    pip install -r requirements-radar.txt
    python benchmarks/nowcasting.py --folders=fmi/20160928,fmi/20170509,knmi,mch

Each folder holds an event, or several. For each, a network is trained on all others and
measured on all composites of this one, the whole area, beside pysteps' optical flow,
S-PROG and STEPS, with `--preset=ensemble` of as many members; no date may be in two
folders. Printed are the figures by lead time and, of MSE and CSI, the ratio to the
better of the first two, of the CRPS that to STEPS: MSE and CRPS below 1 and CSI above 1
are better. A run that has ended is not repeated; its folder has pictures of the test
and of the forecast after the event's last composite.

With `--choose`, `task.change_share` and `task.last_frame_share` are chosen for each
event on the others alone. For this a network is trained on all events but two, for each
two. An event gets the shares that are best on the others, each of which is forecast by
the network that has seen neither. The best ones are ahead of the better peer in most
figures; of equal ones, those with the larger mean logarithm of the ratios.
"""

import argparse
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

# Run as a script, the repository is not on the path unless it is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import machine_line
from convlstm_jax import load
from convlstm_jax.cli.evaluate_folder import whole_area
from convlstm_jax.data.radar.config import RadarConfig, date_of
from convlstm_jax.data.radar.folder import open_folder
from convlstm_jax.metrics.accumulate import add_sums, batch_sums

_ROOT = Path(__file__).resolve().parent.parent
_METRICS = {"MSE": "mse", "CSI 0.5": "csi_0.5_mm_per_h", "CSI 2": "csi_2_mm_per_h"}
_BIASES = {"bias 0.5": "bias_0.5_mm_per_h", "bias 2": "bias_2_mm_per_h"}
_OF_ENSEMBLES = {"CRPS": "crps", "spread / error": "spread_error_ratio"}
_PEERS: dict[str, tuple[str, ...]] = dict.fromkeys(
    _METRICS.values(), ("optical_flow", "s_prog")
)
_PEERS["crps"] = ("steps",)
_CHOICES = [*itertools.product((0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.4, 0.8))]

Shares = tuple[float, float]  # of the change, and of the last frame
Figures = dict[str, list[Any]]  # metric → one a lead time


def main_py(*options: str) -> None:
    """Runs main.py."""
    subprocess.run([sys.executable, "main.py", *options], cwd=_ROOT, check=True)


def dates_in(folder: Path, pixel_size_km: float) -> str:
    """The dates of the events in a folder, with commas between them."""
    config = RadarConfig(path=str(folder), pixel_size_km=pixel_size_km)
    return ",".join(sorted(set(map(date_of, open_folder(str(folder), config).runs))))


def trained(dates: Iterable[str], parsed: argparse.Namespace) -> Path:
    """The run of a network that was trained on all events but those of these dates."""
    without = ",".join(sorted(dates))
    workdir: Path = parsed.workdir / without.replace(",", "_")
    if not (workdir / "evaluation.json").exists():
        main_py(
            f"--config=configs/radar_nowcasting.py:{parsed.preset}",
            f"--workdir={workdir}",
            f"--config.data.path={','.join(map(str, parsed.folders))}",
            f"--config.data.pixel_size_km={parsed.pixel_size_km:g}",
            f"--config.data.test_conditions={without}",
            *parsed.options,
        )
    return workdir


def measured(folder: Path, date: str, parsed: argparse.Namespace) -> dict[str, Any]:
    """The evaluation of an event by a network that was trained on all others.

    The forecast after the event's last composite is drawn, too.
    """
    workdir = trained([date], parsed)
    found = workdir / f"evaluation_{folder.name}.json"
    if not found.exists():
        options = f"--workdir={workdir}", f"--input={folder}"
        main_py("--mode=predict", *options, f"--output={workdir / 'nowcast.png'}")
        main_py("--mode=evaluate", *options, f"--every={parsed.every}")
    result: dict[str, Any] = json.loads(found.read_text())
    return result


def by_shares(
    workdir: Path, folder: Path, every: int, choices: Sequence[Shares]
) -> dict[Shares, Any]:
    """The figures of a run on an event, for choices of the two shares."""
    model = load(workdir)
    objective, clips = whole_area(model.experiment, folder, every)

    @jax.jit
    def sums(batch: Any, change_share: float, last_frame_share: float) -> Any:
        task = objective.with_config(
            change_share=change_share, last_frame_share=last_frame_share
        )
        inputs, target = task.split_batch(batch)
        forecast, _ = task.outputs(model.variables, inputs, target)["model"]
        metrics = task.metrics(forecast, target, task.target_mask(batch))
        return batch_sums(metrics, jnp.ones(1))

    totals: dict[Shares, Any] = {}
    for index in tqdm(range(len(clips)), desc=folder.name, unit="clip"):
        batch = {name: of[np.newaxis] for name, of in clips[index].items()}
        for shares in choices:
            totals[shares] = add_sums(totals.get(shares), sums(batch, *shares))
    shape = clips[0]["frames"].shape[1:]
    return {
        shares: objective.summarize(total, shape).per_lead_time
        for shares, total in totals.items()
    }


def gains(model: Figures, peers: dict[str, Figures], lead_times: list[int]) -> Any:
    """Logarithms of the ratios to the better peer, above 0 where the model is ahead."""
    found = []
    for metric in _METRICS.values():
        better, sign = (max, 1) if metric.startswith("csi") else (min, -1)
        for i in lead_times:
            peer = better(peers[name][metric][i] for name in _PEERS[metric])
            found.append(sign * math.log(model[metric][i] / peer))
    return np.asarray(found)


def chosen(dates: list[str], parsed: argparse.Namespace) -> list[Shares]:
    """For each event the shares that are best on the others; all counts are printed."""
    events = zip(parsed.folders, dates, strict=True)
    peers = [measured(*event, parsed)["per_lead_time"] for event in events]
    found: dict[tuple[int, int], dict[Shares, Any]] = {}
    for pair in itertools.combinations(range(len(dates)), 2):
        both = [dates[i] for i in pair]
        workdir = trained(both, parsed)
        for left_out, event in (pair, pair[::-1]):
            folder = parsed.folders[event]
            figures = by_shares(workdir, folder, parsed.every, _CHOICES)
            found[left_out, event] = {
                shares: gains(of, peers[event], parsed.lead_times)
                for shares, of in figures.items()
            }
    every = range(len(dates))
    result = [
        _best([found[i, j] for j in every if j != i], f"{dates[i]}, by the others")
        for i in every
    ]
    _best(list(found.values()), "all events")
    return result


def _best(events: list[dict[Shares, Any]], label: str) -> Shares:
    """The shares that are ahead in most figures, of equal ones by the largest mean."""
    print(f"\nFor {label}: change, last frame, ahead, mean logarithm")
    scores = {}
    for shares in events[0]:
        values = np.concatenate([of[shares] for of in events])
        scores[shares] = int((values > 0).sum()), float(values.mean())
        print(*shares, f"{scores[shares][0]} of {len(values)}, {scores[shares][1]:.4f}")
    best = max(scores, key=scores.__getitem__)
    print("chosen:", *best, flush=True)
    return best


def table(result: dict[str, Any], minutes: list[int], lead_times: list[int]) -> str:
    """An event's figures by lead time, and their ratios to the better peer's."""
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
    parser.add_argument(
        "--folders", required=True, help="of other events each, by commas"
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/nowcasting"))
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--pixel_size_km", type=float, default=4)
    parser.add_argument("--every", type=int, default=3, help="of the start times")
    parser.add_argument("--minutes", default="15,30,45,60", help="lead times")
    parser.add_argument("--minutes_per_frame", type=int, default=5)
    parser.add_argument("--choose", action="store_true", help="the shares, see above")
    parsed, options = parser.parse_known_args(arguments)
    parsed.options = options
    parsed.folders = [Path(one).resolve() for one in parsed.folders.split(",")]
    parsed.workdir = parsed.workdir.resolve()
    minutes = [int(one) for one in parsed.minutes.split(",")]
    parsed.lead_times = [m // parsed.minutes_per_frame - 1 for m in minutes]
    dates = [dates_in(folder, parsed.pixel_size_km) for folder in parsed.folders]
    every = ",".join(dates).split(",")
    if len(set(every)) < len(every):
        parser.error(f"--folders: dates of the events must differ: {', '.join(every)}")
    if parsed.choose and len(dates) < 4:
        parser.error("--choose needs at least four folders")
    shares = chosen(dates, parsed) if parsed.choose else []
    for number, (folder, date) in enumerate(zip(parsed.folders, dates, strict=True)):
        result = measured(folder, date, parsed)
        if parsed.choose:
            one = shares[number]
            figures = by_shares(trained([date], parsed), folder, parsed.every, [one])
            result["per_lead_time"]["model"] = figures[one]
        print(f"\n**{date}**, {result['data']['description']}\n")
        print(table(result, minutes, parsed.lead_times), flush=True)
    print(f"\n{machine_line(('jax', 'pysteps'))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
