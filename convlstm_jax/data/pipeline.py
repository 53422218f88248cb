"""The input pipeline: shuffled, sharded, batched and prefetched clips, by Grain."""

from collections.abc import Iterator
from typing import Any, Protocol

import grain
import numpy as np

from convlstm_jax.data.base import Augmentation
from convlstm_jax.data.sources import ClipSource

# Endless for any run, and yet small enough for Grain to count and slice.
_ENDLESS_CLIPS = 2**48


class BatchIterator(Iterator[dict[str, np.ndarray]], Protocol):
    """An iterator over batches that holds threads or processes until closed."""

    def close(self) -> None:
        """Ends the threads and processes; no batch can be taken afterwards."""
        ...


class _ProcessRows(grain.MapDataset):
    """The rows of every global batch that belong to one process.

    Process p of n takes rows [p*B/n, (p+1)*B/n), the same ones that a global array
    sharded over processes puts there, so that the global batch, order included, does
    not depend on the number of processes.
    """

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


class _PaddedSource:
    """The first clips of a source, weighted, and repeats of the last to fill up.

    Padding repeats a real clip, because a metric of an artificial one (a blank frame
    has no correlation) could be NaN, and NaN times weight zero is NaN.
    """

    def __init__(self, source: ClipSource, num_sequences: int, length: int) -> None:
        self._source = source
        self._num_sequences = num_sequences
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        clip = dict(self._source[min(index, self._num_sequences - 1)])
        clip["weight"] = np.asarray(index < self._num_sequences, np.float32)
        return clip


def _process_batches(
    clips: grain.MapDataset, batch_size: int, process_index: int, process_count: int
) -> grain.MapDataset:
    """This process's part of the global batches of some clips."""
    if process_count < 1 or not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index is {process_index} of process_count {process_count}: it "
            "must be from 0 to process_count - 1"
        )
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size is {batch_size}: it must be a positive multiple of the number "
            f"of processes, {process_count}"
        )
    rows = _ProcessRows(clips, batch_size, process_index, process_count)
    return rows.batch(batch_size // process_count)


def _check_at_least_zero(**values: int) -> None:
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"{name} is {value}: it must be at least 0")


def _own_arrays(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copies a batch out of the memory shared with a worker, which Grain reclaims."""
    return {key: np.array(value) for key, value in batch.items()}


def _read_ahead(prefetch_batches: int) -> grain.ReadOptions:
    """One thread that keeps so many batches ready; 0 for none."""
    # More threads would only wait for each other: making a clip holds Python's lock.
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
    """Endless training batches, shuffled anew each epoch.

    The global batch of a step (this process's rows put after those of the processes
    before it) depends on the source, the batch size, the seed, the step and what
    augments it alone: not on the number of processes or workers, nor on where the run
    was resumed. The order of the clips does not depend on what augments them.

    Args:
        source: the clips.
        batch_size: sequences in a global batch, B.
        seed: seed of the order, 0 <= seed < 2**32.
        start_step: step whose batch comes first; resuming at k gives the batches that
            an uninterrupted run gives from step k on, bit for bit.
        process_index: this process, 0 <= process_index < process_count.
        process_count: processes that share the global batch.
        num_workers: processes that prepare batches; 0: a thread does. Workers take
            seconds to start, and Grain asks two things of a script that uses them: a
            `__main__` guard, and parsed absl flags (`absl.app.run`).
        prefetch_batches: batches kept ready (per worker) while the caller computes.
        augment: changes a clip, without writing to its arrays; it is given a generator
            of its own for each clip of each epoch. With workers it must be picklable.

    Returns:
        An iterator over {"frames": uint8 [B / process_count, T, H, W, C]} and whatever
        other keys the source has; call its `close()` when done.

    Raises:
        ValueError: an argument is out of its range; the message names it.
    """
    _check_at_least_zero(start_step=start_step, num_workers=num_workers)
    _check_at_least_zero(prefetch_batches=prefetch_batches)
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}: it must be from 0 to 2**32 - 1")
    clips = grain.MapDataset.source(source).seed(seed).shuffle()
    clips = clips.repeat(-(-_ENDLESS_CLIPS // len(source)))
    if augment is not None:
        # Before the rows are dealt out, or every process would draw the same numbers.
        clips = clips.random_map(augment)
    batches = _process_batches(clips, batch_size, process_index, process_count)
    batches = batches[start_step:]
    if num_workers == 0:
        return iter(batches.to_iter_dataset(_read_ahead(prefetch_batches)))
    # The workers themselves run ahead by prefetch_batches.
    options = grain.MultiprocessingOptions(
        num_workers=num_workers, per_worker_buffer_size=max(1, prefetch_batches)
    )
    shared = batches.to_iter_dataset(_read_ahead(0)).mp_prefetch(options)
    return iter(shared.map(_own_arrays))


def eval_batches(
    source: ClipSource,
    batch_size: int,
    num_sequences: int,
    process_index: int = 0,
    process_count: int = 1,
    prefetch_batches: int = 2,
) -> BatchIterator:
    """The first clips of a source once, in order, in batches of one shape.

    Args:
        source: the clips.
        batch_size: sequences in a global batch, B.
        num_sequences: how many of the source's clips, at most its length.
        process_index: see `train_batches`, as for the others.
        process_count: see there.
        prefetch_batches: see there.

    Returns:
        An iterator over ceil(num_sequences / B) batches of the source's keys and
        "weight", float32 [B / process_count]: 0 marks the padding that fills the last
        batch up (repeats of the last clip), 1 the rest.

    Raises:
        ValueError: an argument is out of its range; the message names it.
    """
    _check_at_least_zero(prefetch_batches=prefetch_batches)
    if not 1 <= num_sequences <= len(source):
        raise ValueError(
            f"num_sequences is {num_sequences}: it must be from 1 to {len(source)}, "
            "which the source holds"
        )
    length = -(-num_sequences // max(1, batch_size)) * batch_size
    clips = grain.MapDataset.source(_PaddedSource(source, num_sequences, length))
    batches = _process_batches(clips, batch_size, process_index, process_count)
    return iter(batches.to_iter_dataset(_read_ahead(prefetch_batches)))
