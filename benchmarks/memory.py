"""Memory and time of a training step over a long clip, by what is kept for it.

    python benchmarks/memory.py
    python benchmarks/memory.py --side=128 --contenders=default,checkpoint   # 24 GB
    python benchmarks/memory.py --workload=openstl_convlstm_s --batch-size=16

One ConvLSTM layer, 3×3, on frames of as many channels as it has features, or what
`train_step.py` measures under a name: forward and backward pass with each choice of
`config.model.memory`, and in PyTorch. As there all are compared first, and take turns
in processes of their own.

Columns: ratio, of the training time to that of "default", the median over the rounds;
kept, what the backward pass is given besides weights and frames; temporary, what XLA
plans for the whole step besides arguments and gradients; peak, of resident memory
during steps of a process that does nothing else, less what was resident before them.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

# Run as a script, the repository is not on the path unless it is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.contenders import OURS, Settings
from benchmarks.machine import machine_line
from benchmarks.train_step import (
    PACKAGES,
    Entry,
    measure,
    memory_cells,
    refuse_below_one,
    tell_who_left,
)
from benchmarks.worker import ContenderError
from benchmarks.workloads import WORKLOADS, Workload

ENTRIES = {
    **{
        memory: Entry(memory, OURS, Settings(memory=memory))
        for memory in ("default", "checkpoint")
    },
    "pytorch": Entry("pytorch", "pytorch", Settings()),
}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| | train ms | ratio | kept MB | temporary MB | peak MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        memory = " | ".join(memory_cells(row, "kept", "temporary", "peak"))
        lines.append(
            f"| {row['contender']} | {row['train_ms']:,.1f} | {row['ratio']:.2f} | "
            f"{memory} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints, and writes the rows where asked to; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workload",
        choices=[workload.name for workload in WORKLOADS],
        help="in place of the layer of the three sizes below",
    )
    sizes = {"frames": (200, "T"), "side": (64, "of a frame, pixels"),
             "features": (64, "of input and layer")}  # fmt: skip
    for name, (default, what) in sizes.items():
        parser.add_argument(f"--{name}", type=int, help=f"{what}; {default} if not set")
    parser.add_argument("--batch-size", type=int, help="1, or the workload's own")
    parser.add_argument("--contenders", default=",".join(ENTRIES))
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--json", default="", help="file to write the rows to")
    options = parser.parse_args(arguments)
    names = options.contenders.split(",")
    for name in names:
        if name not in ENTRIES:
            allowed = ", ".join(ENTRIES)
            parser.error(f"{name!r} is unknown: it must be one of {allowed}")
    refuse_below_one(parser, options, (*sizes, "batch_size", "rounds"))
    given = {name: getattr(options, name) for name in sizes}
    for name, value in given.items():
        if value and options.workload:
            parser.error(f"--{name} is {value}: --workload has sizes of its own")
    frames, side, features = (
        given[name] or default for name, (default, _) in sizes.items()
    )
    layer = Workload(
        "long_clip", "layer", 1, frames, (side, side, features), (features,), 3
    )
    named = {workload.name: workload for workload in WORKLOADS}
    workload = named.get(options.workload, layer)
    if options.batch_size:
        workload = dataclasses.replace(workload, batch_size=options.batch_size)
    machine = machine_line(PACKAGES)
    print(f"{machine}\n\n{workload.description}\n", flush=True)
    try:
        rows, left = measure(
            workload,
            [ENTRIES[name] for name in names],
            num_rounds=options.rounds,
            num_slow_rounds=1,
            seconds=float("inf"),
        )
    except ContenderError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(rows))
    tell_who_left(left)
    if options.json:
        document = {"machine": machine, "rows": rows, "left": left}
        Path(options.json).write_text(json.dumps(document, indent=2) + "\n")
    return int(any(one["failed"] for one in left))


if __name__ == "__main__":
    sys.exit(main())
