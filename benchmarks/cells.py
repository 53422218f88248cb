"""Which cell for my budget? Trains each on Moving MNIST, 10 → 10, for the same time.

    python benchmarks/cells.py --minutes=10 --folder=runs/cells
    python benchmarks/cells.py --minutes=1 --cells=convlstm,mingru

All networks are the recurrent predictor with two layers of about the same number of
parameters (`--parameters`), trained as `configs/moving_mnist_recurrent.py:quick` is.
Two rounds of short runs find out how many steps a cell takes in the time, so that its
learning rate ends where the time does; then it is trained from the start, evaluated on
the test clips, and the two best are trained once more with another seed. One that
diverges is trained again with a third of the learning rate. Digits are those of
`CONVLSTM_MNIST_DIR`, or scikit-learn's. A run that has ended is not repeated. Beside
the table, `cells.png` shows what each cell makes of one test clip.
"""

import argparse
import csv
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

# Run as a script, the repository is not on the path unless it is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np

from benchmarks.machine import machine_line
from convlstm_jax import load
from convlstm_jax.cells import CELLS
from convlstm_jax.cli.build import build_sources
from convlstm_jax.models.recurrent_predictor import RecurrentPredictorConfig
from convlstm_jax.viz import pixels as px
from convlstm_jax.viz.film_strip import Row, draw_strip, selection

_ROOT = Path(__file__).resolve().parent.parent
_CONFIG = "configs/moving_mnist_recurrent.py:quick"
_PILOTS, _PILOT_STEPS, _LOG_EVERY = 2, 40, 10
_METRICS = ("mse", "mae", "ssim")
_SHOWN_CLIP, _SHOWN_FRAMES, _SHOWN_SIZE = 1, 8, 96
_LEARNING_RATES = (1e-2, 3e-3, 1e-3)  # The first is that of the config.


def main_py(workdir: Path, *options: str) -> None:
    """Runs main.py."""
    command = [sys.executable, "main.py", f"--workdir={workdir}", *options]
    subprocess.run(command, cwd=_ROOT, check=True)


def network(cell: str, features: int) -> list[str]:
    """The flags of a network with this cell."""
    return [
        f"--config={_CONFIG}",
        f"--config.model.cell={cell}",
        f"--config.model.features={features},{features}",
        "--config.task.num_input_frames=10",
        "--config.task.num_output_frames=10",
    ]


def num_parameters(cell: str, features: int) -> int:
    """The parameters of a network on 64×64 pixels."""
    model = RecurrentPredictorConfig(
        cell=cell,
        features=(features, features),
        input_kernel_size=3,
        recurrent_kernel_size=3,
    ).build()
    init = functools.partial(model.init_forecaster, frame_shape=(64, 64, 1))
    shapes = jax.eval_shape(init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def features_for(cell: str, parameters: int) -> int:
    """The multiple of 8 whose network has the number of parameters nearest to this."""
    sizes = {8: num_parameters(cell, 8)}
    while sizes[max(sizes)] < parameters:
        features = max(sizes) + 8
        sizes[features] = num_parameters(cell, features)
    return min(sizes, key=lambda features: abs(sizes[features] - parameters))


def steps_per_second(cell: str, features: int, workdir: Path) -> float:
    """The rate of training in a short run, the median of its log."""
    if not (workdir / "evaluation.json").exists():
        main_py(
            workdir,
            *network(cell, features),
            f"--config.train.num_steps={_PILOT_STEPS}",
            f"--config.train.log_every_steps={_LOG_EVERY}",
            "--config.eval.num_sequences=8",
        )
    config = json.loads((workdir / "config.json").read_text())
    with (workdir / "metrics.csv").open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == "train"]
    rates = sorted(
        float(row["value"]) for row in rows if row["metric"] == "samples_per_second"
    )
    return rates[len(rates) // 2] / config["train"]["batch_size"]


def pilot_folders(cell: str, folder: Path) -> list[Path]:
    """Where the short runs of a cell lie."""
    return [folder / f"{cell}-pilot{number}" for number in range(_PILOTS)]


def trained(cell: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains and evaluates a cell; a row of the table."""
    folder = arguments.folder
    features = features_for(cell, arguments.parameters)
    rate = max(
        steps_per_second(cell, features, pilot) for pilot in pilot_folders(cell, folder)
    )
    num_steps = max(round(60 * arguments.minutes * rate), 2)
    options = [
        *network(cell, features),
        f"--config.seed={seed}",
        f"--config.train.num_steps={num_steps}",
        f"--config.train.eval_every_steps={max(num_steps // 4, 1)}",
        f"--config.task.sampling_end_step={max(num_steps // 2, 1)}",
    ]
    for learning_rate in _LEARNING_RATES:
        workdir = folder / f"{cell}-seed{seed}-{learning_rate:g}"
        rate_option = f"--config.optimizer.learning_rate={learning_rate:g}"
        try:
            if not (workdir / "evaluation.json").exists():
                main_py(workdir, *options, rate_option)
            break
        except subprocess.CalledProcessError as error:
            diverged = error.returncode == 2
            if not diverged or learning_rate == _LEARNING_RATES[-1]:
                raise
    results = json.loads((workdir / "evaluation.json").read_text())
    return {
        "cell": cell,
        "seed": seed,
        "run": workdir.name,
        "learning_rate": learning_rate,
        "features": features,
        "parameters": num_parameters(cell, features),
        "steps": num_steps,
        **{name: results["model"][name] for name in _METRICS},
        "all_zeros_mse": results["zeros"]["mse"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown, the best first."""
    lines = [
        "| cell | seed | layers | parameters | learning rate | steps | MSE ↓ "
        "| of all zeros | SSIM ↑ |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["mse"]):
        share = row["mse"] / row["all_zeros_mse"]
        lines.append(
            f"| {row['cell']} | {row['seed']} | 2 × {row['features']} | "
            f"{row['parameters']:,} | {row['learning_rate']:g} | {row['steps']:,} | "
            f"{row['mse']:.1f} | "
            f"{share:.2f} | {row['ssim']:.3f} |"
        )
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draws a test clip, and below it what each cell predicts, the best first."""
    strips: list[Row] = []

    def add(name: str, colour: str, clip: Any, times: range) -> None:
        chosen = selection(len(clip), _SHOWN_FRAMES)
        frames = list(px.fit(px.to_pixels(clip[chosen]), _SHOWN_SIZE))
        labels = [] if strips[1:] else [px.time_label(times[int(i)]) for i in chosen]
        strips.append(Row([(name, {"bold": True})], colour, frames, labels))

    for row in sorted(rows, key=lambda row: row["mse"]):
        if row["seed"]:
            continue
        predictor = load(folder / row["run"])
        task: Any = predictor.experiment.task
        given, predicted = task.num_input_frames, task.num_output_frames
        if not strips:
            clip = build_sources(predictor.experiment).test[_SHOWN_CLIP]["frames"]
            clip = clip[: given + predicted] / np.float32(255)
            add("input", px.INPUT_COLOUR, clip[:given], range(1 - given, 1))
            add("truth", px.TRUTH_COLOUR, clip[given:], range(1, predicted + 1))
        found = np.asarray(predictor.predict(clip[:given]))
        add(row["cell"], px.PREDICTION_COLOUR, found, range(1, predicted + 1))
    draw_strip(strips).save(folder / "cells.png")


def main(arguments: list[str] | None = None) -> int:
    """Trains the cells one after the other and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="of training a cell")
    parser.add_argument("--parameters", type=int, default=300_000)
    parser.add_argument("--cells", default=",".join(CELLS))
    parser.add_argument("--folder", type=Path, default=Path("runs/cells"))
    parsed = parser.parse_args(arguments)
    parsed.folder = parsed.folder.resolve()
    parsed.folder.mkdir(parents=True, exist_ok=True)
    cells = parsed.cells.split(",")
    for cell in cells:
        if cell not in CELLS:
            parser.error(f"--cells: {cell!r} is unknown: it must be of {list(CELLS)}")
    # All rates first and in turn, so that they are of the same machine, and what else
    # it does later changes no result.
    for number in range(_PILOTS):
        for cell in cells:
            features = features_for(cell, parsed.parameters)
            pilot = pilot_folders(cell, parsed.folder)[number]
            steps_per_second(cell, features, pilot)
    rows = []
    runs = [(cell, 0) for cell in cells]
    while runs:
        rows.append(trained(*runs.pop(0), parsed))
        (parsed.folder / "rows.json").write_text(json.dumps(rows, indent=1))
        print(table(rows), flush=True)
        if not runs and len(rows) == len(cells):
            best = sorted(rows, key=lambda row: row["mse"])[:2]
            runs = [(row["cell"], 1) for row in best]
    draw(rows, parsed.folder)
    print(f"{parsed.minutes:g} minutes each; {machine_line(('jax', 'flax'))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
