"""How long a GIF or video file says it is, to tell a whole file from a cut one.

Decoders read a truncated file up to its end and then stop as if nothing had happened,
so a download that broke off would pass for a shorter clip. The common containers write
their length down; comparing it with the size of the file finds the cut.
"""

import struct
from pathlib import Path

_EBML_HEADER = 0x1A45DFA3
_MATROSKA_SEGMENT = 0x18538067


def announced_size(path: Path) -> int | None:
    """Returns the number of bytes a video file should have by its own account.

    MP4 and QuickTime are read box by box, AVI by its RIFF header and Matroska (mkv,
    webm) by the size of its segment.

    Args:
      path: The video file.

    Returns:
      The size in bytes, or None where the file does not tell (live recordings) or is
      none of these containers.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and len(head) == 12:
            size = struct.unpack("<I", head[4:8])[0]
            # A recorder that crashed leaves 0 or all ones in the header.
            return None if size in (0, 0xFFFFFFFF) else size + 8
        if head[:4] == _EBML_HEADER.to_bytes(4, "big"):
            return _matroska_size(head + file.read(4096))
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        return _mp4_size(path)
    return None


def is_whole_gif(content: bytes) -> bool:
    """Walks the blocks of a GIF and tells whether its closing mark is reached.

    Args:
      content: The file; what follows the closing mark does not matter.

    Returns:
      False for a file that was cut (or is no GIF).
    """
    try:
        position = 13 + _colour_table_size(content[10])
        while content[position] != ord(";"):
            if content[position] == ord("!"):  # an extension
                position += 2
            elif content[position] == ord(","):  # an image
                position += 10 + _colour_table_size(content[position + 9]) + 1
            else:
                return False
            while content[position]:  # its sub-blocks, up to an empty one
                position += content[position] + 1
            position += 1
    except IndexError:
        return False
    return True


def _colour_table_size(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _mp4_size(path: Path) -> int | None:
    """Adds up the top-level boxes; the last one may reach past the end of the file."""
    file_size = path.stat().st_size
    position = 0
    with path.open("rb") as file:
        while position < file_size:
            file.seek(position)
            header = file.read(16)
            if len(header) < 8:
                # Left-over bytes that are no box header: the next box was cut.
                return position + 8
            size = struct.unpack(">I", header[:4])[0]
            if size == 0:  # "to the end of the file"
                return None
            if size == 1:
                if len(header) < 16:
                    return position + 16
                size = struct.unpack(">Q", header[8:16])[0]
            if size < 8:
                return None
            position += size
    return position


def _matroska_size(head: bytes) -> int | None:
    """Reads the EBML header and the size of the segment behind it."""
    position = 4
    header_size, position = _variable_integer(head, position)
    if header_size is None:
        return None
    position += header_size
    if head[position : position + 4] != _MATROSKA_SEGMENT.to_bytes(4, "big"):
        return None
    segment_size, position = _variable_integer(head, position + 4)
    return None if segment_size is None else position + segment_size


def _variable_integer(data: bytes, position: int) -> tuple[int | None, int]:
    """Reads an EBML variable-size integer: (value or None if unknown, position)."""
    if position >= len(data) or data[position] == 0:
        return None, position
    length = 9 - data[position].bit_length()
    raw = int.from_bytes(data[position : position + length], "big")
    mask = (1 << (7 * length)) - 1
    value = raw & mask
    return (None if value == mask else value), position + length
