"""What may differ between the config of a run and the one it is taken up with."""

from pathlib import Path

from ml_collections import ConfigDict

from convlstm_jax.cli.validate import leaves
from convlstm_jax.errors import UserError

# Resuming with other values here gives the same weights, step by step.
FREE_WHEN_RESUMING = frozenset(
    {
        "note",
        "data.digits_dir",
        "data.tfds_dir",
        "data.test_file",
        "data.num_test_sequences",
        "data.num_workers",
        "data.prefetch_batches",
        "train.num_steps",
        "train.log_every_steps",
        "train.early_stopping_patience",
        "train.num_pictures",
        "eval.num_sequences",
        "eval.batch_size",
        "eval.num_pictures",
        "eval.num_vmaf_sequences",
    }
)
# These schedules are laid out over all steps: another number bends the whole curve.
_SCHEDULES_OVER_ALL_STEPS = ("cosine", "one_cycle")
# The task too says which decoders an autoencoder has.
_FIELD_OF_THE_MODEL = "task.name"
# The trained weights fit one model; these fields only say how it is computed.
_FREE_OF_THE_MODEL = frozenset({"model.dtype", "model.implementation", "model.memory"})


def check_resumes(saved: ConfigDict, config: ConfigDict, workdir: Path) -> None:
    """Checks that training may go on under `config` where `saved` left off.

    Raises:
      UserError: naming every differing field that shapes the training, with both
        values.
    """
    free = set(FREE_WHEN_RESUMING)
    before, now = leaves(saved), leaves(config)
    schedule, steps = before.get("optimizer.schedule"), "train.num_steps"
    why = ""
    if schedule in _SCHEDULES_OVER_ALL_STEPS:
        free.discard(steps)
        if before.get(steps) != now.get(steps):
            why = f"; the schedule {schedule!r} is laid out over all steps"
    if before.get("data.path") and now.get("data.path"):
        free.add("data.path")  # The same data may lie elsewhere, or be prepared.
    differing = _differing(saved, config, free)
    if differing:
        raise UserError(
            f"--workdir={workdir} holds a run with another config, so choose another "
            f"folder or give the same config: {differing}{why}"
        )


def check_same_model(saved: ConfigDict, config: ConfigDict, workdir: Path) -> None:
    """Checks that the trained weights of a run fit the model of `config`.

    Raises:
      UserError: naming every differing field of the model with both values.
    """
    free = {path for path in leaves(config) if not path.startswith("model.")}
    free.discard(_FIELD_OF_THE_MODEL)
    differing = _differing(saved, config, free | _FREE_OF_THE_MODEL)
    if differing:
        raise UserError(
            f"the model trained in --workdir={workdir} cannot be changed: {differing}"
        )


def _differing(saved: ConfigDict, config: ConfigDict, free: set[str]) -> str:
    before, now = leaves(saved), leaves(config)
    return ", ".join(
        f"config.{path} is {before.get(path)!r} there and {now.get(path)!r} here"
        for path in dict.fromkeys([*before, *now])
        if path not in free and before.get(path) != now.get(path)
    )
