"""The input pipeline: shuffled, sharded, batched and prefetched clips, by Grain."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import grain
import numpy as np

from convlstm_jax.data.base import Augmentation
from convlstm_jax.data.sources import ClipSource

# More than any run needs, and few enough for Grain to count and slice.
_ENDLESS_CLIPS = 2**48


class BatchIterator(Iterator[dict[str, np.ndarray]], Protocol):
    """An iterator over batches whose threads or processes run until it is closed."""

    def close(self) -> None:
        """Ends the threads and processes."""


class _ProcessRows(grain.MapDataset):
    """Rows [p*B/n, (p+1)*B/n) of every global batch, those of process p of n."""

    def __init__(
        self, parent: grain.MapDataset, batch_size: int, index: int, count: int
    ) -> None:
        super().__init__(parent)
        self._batch_size = batch_size
        self._num_rows = batch_size // count
        self._first_row = index * self._num_rows

    def __len__(self) -> int:
        return len(self._parent) // self._batch_size * self._num_rows

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        step, row = divmod(index, self._num_rows)
        return self._parent[step * self._batch_size + self._first_row + row]


def _process_batches(
    clips: grain.MapDataset, batch_size: int, process_index: int, process_count: int
) -> grain.MapDataset:
    """This process's part of the global batches."""
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size is {batch_size}: it must be a positive multiple of the number "
            f"of processes, {process_count}"
        )
    rows = _ProcessRows(clips, batch_size, process_index, process_count)
    return rows.batch(batch_size // process_count)


def _own_arrays(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copies a batch out of the memory that Grain shares with a worker."""
    return {key: np.array(value) for key, value in batch.items()}


def _follow_the_program(index: int, count: int) -> None:
    """Ends a worker with the program, even a killed one; signals are left to that."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def follow() -> None:
        program = multiprocessing.parent_process()
        if program is not None:
            program.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _read_ahead(prefetch_batches: int) -> grain.ReadOptions:
    # More threads would only wait for each other: making a clip holds the GIL.
    return grain.ReadOptions(
        num_threads=min(1, prefetch_batches), prefetch_buffer_size=prefetch_batches
    )


def train_batches(
    source: ClipSource,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    prefetch_batches: int = 2,
    augment: Augmentation | None = None,
) -> BatchIterator:
    """Endless training batches, shuffled in each epoch.

    The global batch of a step (the rows of all processes in order) depends only on the
    source, the batch size, the seed, the step and the augmentation: not on the number
    of processes or workers, nor on where the run was resumed.

    Args:
        source: the clips.
        batch_size: sequences in a global batch, B.
        seed: seed of the order, 0 <= seed < 2**32.
        start_step: step of the first batch.
        process_index: this process, of `process_count` that share the global batch.
        process_count: their number, a divisor of B.
        num_workers: processes that prepare batches; 0: a thread. With workers, Grain
            needs a `__main__` guard and parsed absl flags (`absl.app.run`).
        prefetch_batches: batches kept ready (per worker).
        augment: changes a clip, with a new generator for each clip of each epoch.

    Returns:
        Batches `[B / process_count, ...]` of the source's keys; to be closed when done.
    """
    clips = grain.MapDataset.source(source).seed(seed).shuffle()
    clips = clips.repeat(-(-_ENDLESS_CLIPS // len(source)))
    if augment is not None:
        # Before the split into rows, or all processes would draw the same numbers.
        clips = clips.random_map(augment)
    batches = _process_batches(clips, batch_size, process_index, process_count)
    batches = batches[start_step:]
    if num_workers == 0:
        return iter(batches.to_iter_dataset(_read_ahead(prefetch_batches)))
    # The workers themselves run ahead by prefetch_batches.
    options = grain.MultiprocessingOptions(
        num_workers=num_workers, per_worker_buffer_size=max(1, prefetch_batches)
    )
    shared = batches.to_iter_dataset(_read_ahead(0)).mp_prefetch(
        options, worker_init_fn=_follow_the_program
    )
    return iter(shared.map(_own_arrays))


def eval_batches(
    source: ClipSource,
    batch_size: int,
    num_sequences: int,
    process_index: int = 0,
    process_count: int = 1,
    prefetch_batches: int = 2,
) -> BatchIterator:
    """The first `num_sequences` clips of a source, in order, in batches of one shape.

    Besides the source's keys, they have "weight", float32 `[B / process_count]`: 0 for
    the padding of the last batch (repeats of the last clip), else 1. For the arguments
    see `train_batches`.
    """
    if not 1 <= num_sequences <= len(source):
        raise ValueError(
            f"num_sequences is {num_sequences}: it must be from 1 to {len(source)}, "
            "which the source holds"
        )
    length = -(-num_sequences // max(1, batch_size)) * batch_size

    def clip(index: int) -> dict[str, np.ndarray]:
        # The padding is a real clip: a blank one could have a metric of NaN, and
        # 0 * NaN is NaN.
        weight = np.asarray(index < num_sequences, np.float32)
        return {**source[min(index, num_sequences - 1)], "weight": weight}

    clips = grain.MapDataset.range(length).map(clip)
    batches = _process_batches(clips, batch_size, process_index, process_count)
    return iter(batches.to_iter_dataset(_read_ahead(prefetch_batches)))
