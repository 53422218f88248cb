"""The training step of a config alone, on one batch that lies on the device.

    python -m benchmarks.bare_step --config=FILE[:PRESET] [--config.SECTION.FIELD=VALUE]

Takes the flags of main.py, sets up the process as it does, and works for
benchmarks/program.py: prints the config's facts in one line of JSON, then reads numbers
of steps from its standard input and answers each with the seconds they took.
"""

import json
import os
import sys
import time

from convlstm_jax.cli import flags, process
from convlstm_jax.cli.entry import load_config


def main(arguments: list[str]) -> None:
    """Answers until the parent ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Whatever a library prints is no answer.
    process.set_up()
    config = load_config(flags.parse(arguments))

    # JAX starts when the process is set up, as in main.py.
    import jax

    from convlstm_jax.cli import build
    from convlstm_jax.training.sharding import data_mesh, put_batch
    from convlstm_jax.training.state import init_state
    from convlstm_jax.training.steps import make_train_step

    mesh = data_mesh()
    sources = build.build_sources(config)
    task = build.build_task(config, sources)
    optimizer = build.build_optimizer(config)
    ema_decay = config.optimizer.ema_decay
    train_step = make_train_step(
        task, optimizer, mesh, seed=config.seed, ema_decay=ema_decay
    )
    state = init_state(
        task,
        optimizer,
        seed=config.seed,
        frame_shape=build.frame_shape(config),
        with_ema=ema_decay > 0,
        mesh=mesh,
    )
    batches = build.process_train_batches(config, sources, 0)
    batch = put_batch(next(batches), mesh)
    batches.close()
    state, _ = jax.block_until_ready(train_step(state, batch))
    facts = {
        "device": jax.devices()[0].device_kind,
        "data": sources.description,
        "batch_size": config.train.batch_size,
        "log_every_steps": config.train.log_every_steps,
        "checkpoint_every_steps": config.train.checkpoint_every_steps,
    }
    print(json.dumps(facts), file=answers, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            state, metrics = train_step(state, batch)
        jax.block_until_ready((state, metrics))
        print(time.perf_counter() - start, file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
