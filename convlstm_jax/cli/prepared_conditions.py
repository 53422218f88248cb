"""What a prepared folder must be of, which the task decides."""

from convlstm_jax.cli.condition import Conditions
from convlstm_jax.data.prepared import (
    ANNOTATED_VIDEOS,
    COMPOSITES,
    VIDEOS,
    Kind,
    kind_of,
)

CONDITIONS = Conditions()

# The other tasks' folders are of videos.
_KINDS_OF_TASKS = {"classify": ANNOTATED_VIDEOS, "nowcast": COMPOSITES}


def kind_of_task(task: str) -> Kind:
    """What a folder is of that --mode=prepare writes with config.task.name=task."""
    return _KINDS_OF_TASKS.get(task, VIDEOS)


@CONDITIONS.over("data.path", "task.name")
def _prepared_folders_suit_the_task(path: str, task: str) -> str | None:
    found, wanted = kind_of(path) if path else "", kind_of_task(task).words
    if found in ("", wanted):
        return None
    return (
        f"config.data.path is {path!r}, which --mode=prepare wrote of {found}: it must "
        f"be of {wanted} with config.task.name={task!r}"
    )
