"""Decoded frames kept in memory, up to a fixed number of bytes a process."""

import threading
from collections import OrderedDict

import numpy as np

CACHE_BYTES = 512 * 2**20
"""Most bytes of frames that one process keeps."""

_OVERHEAD_BYTES = 256  # An array object and its entry, about.


class FrameCache:
    """The frames used last, by (video, number); safe to share between threads.

    Args:
      max_bytes: the budget; frames used least lately are dropped to stay within it.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._frames: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, video: str, number: int) -> np.ndarray | None:
        """Returns a frame, which must not be written to, or None if it is not here."""
        with self._lock:
            frame = self._frames.get((video, number))
            if frame is not None:
                self._frames.move_to_end((video, number))
            return frame

    def put(self, video: str, number: int, frame: np.ndarray) -> None:
        """Keeps a frame, in place of those used least lately where room is short."""
        with self._lock:
            replaced = self._frames.pop((video, number), None)
            if replaced is not None:
                self._num_bytes -= replaced.nbytes + _OVERHEAD_BYTES
            self._frames[video, number] = frame
            self._num_bytes += frame.nbytes + _OVERHEAD_BYTES
            while self._num_bytes > self._max_bytes:
                _, dropped = self._frames.popitem(last=False)
                self._num_bytes -= dropped.nbytes + _OVERHEAD_BYTES

    def has_room(self, video: str, number: int, frame_bytes: int) -> bool:
        """Tells whether a frame of this size is new and fits without dropping one."""
        if (video, number) in self._frames:
            return False
        return self._num_bytes + frame_bytes + _OVERHEAD_BYTES <= self._max_bytes

    @property
    def num_bytes(self) -> int:
        """Bytes in use."""
        return self._num_bytes
