"""GIF animations in which every frame counts.

Pillow merges a frame that equals the one before into a longer pause, so that a clip in
which nothing moves loses frames when it is read back. Here every frame is compressed by
Pillow on its own and the pieces are put into one file, by the GIF89a specification.
"""

import io
import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image

from convlstm_jax.errors import UserError
from convlstm_jax.viz.pixels import enlarge, to_image, to_pixels

_TRAILER = b";"
_LOOP_FOREVER = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"


def gif_bytes(
    frames: np.ndarray, frames_per_second: float = 10, scale: int = 1
) -> bytes:
    """Encodes a clip as a GIF that loops forever.

    Grey frames, and colour frames of at most 256 colours each, are exact to the eight
    bits of a pixel; richer ones are reduced to 256 colours a frame. Reading back gives
    T frames, also where consecutive frames are identical. GIF counts time in hundredths
    of a second: the pauses are rounded such that their sum stays right, and are never
    below 0.02 s, which browsers would slow down to 0.1 s.

    Args:
      frames: [T, H, W, C] or [T, H, W], floats in [0, 1]; values outside are clipped.
      frames_per_second: Playing speed, 0.1 to 1000.
      scale: Whole factor by which every pixel is repeated along H and W.

    Returns:
      The content of the GIF file.

    Raises:
      UserError: The shape, the speed or the scale is not as above.
    """
    check_speed(frames_per_second)
    pixels = to_pixels(frames)
    images = [to_image(frame) for frame in enlarge(pixels, scale)]
    ends = [round(100 * (t + 1) / frames_per_second) for t in range(len(images))]
    pauses = [max(2, end - start) for start, end in zip([0, *ends], ends, strict=False)]
    return encode_gif(images, pauses)


def encode_gif(images: Sequence[Image.Image], pauses: Sequence[int]) -> bytes:
    """Encodes images (mode L or RGB, one size) as a GIF that loops forever.

    Args:
      images: At least one image.
      pauses: How long each is shown, hundredths of a second, 0..65535.

    Returns:
      The content of the GIF file.
    """
    width, height = images[0].size
    file = io.BytesIO()
    shared: bytes | None = None
    for image, pause in zip(images, pauses, strict=True):
        table, data = _compress(image)
        depth = (len(table) // 3).bit_length() - 2  # the table has 2^(depth + 1) rows
        if shared is None:
            shared = table
            file.write(b"GIF89a" + struct.pack("<HH", width, height))
            file.write(bytes([0x80 | 0x70 | depth, 0, 0]) + table + _LOOP_FOREVER)
        # Disposal 1: the frame stays until the next covers it, which it does wholly.
        file.write(b"!\xf9\x04\x04" + struct.pack("<H", pause) + b"\0\0")
        own = table != shared
        file.write(b"," + struct.pack("<HHHH", 0, 0, width, height))
        file.write(bytes([0x80 | depth]) + table if own else b"\0")
        file.write(data)
    return file.getvalue() + _TRAILER


def check_speed(frames_per_second: float) -> None:
    """Raises a `UserError` unless the speed is between 0.1 and 1000."""
    if not 0.1 <= frames_per_second <= 1000:
        raise UserError(
            f"frames_per_second is {frames_per_second}, but must be between 0.1 and "
            "1000."
        )


def _compress(image: Image.Image) -> tuple[bytes, bytes]:
    """Returns the colour table and the compressed pixels of an image."""
    buffer = io.BytesIO()
    # Without `optimize` every grey image has the same table, stored once. Interlaced
    # rows would need a flag of their own in the image descriptor.
    _indexed(image).save(buffer, "GIF", optimize=False, interlace=False)
    content = buffer.getvalue()
    position = 13 + 3 * 2 ** ((content[10] & 7) + 1)
    table = content[13:position]
    while content[position] == ord("!"):  # extensions: skip their sub-blocks
        position += 2
        while content[position]:
            position += content[position] + 1
        position += 1
    start = position + 10  # behind the image descriptor
    if content[position + 9] & 0x80:
        size = 3 * 2 ** ((content[position + 9] & 7) + 1)
        table, start = content[start : start + size], start + size
    return table, content[start : content.rindex(_TRAILER)]


def _indexed(image: Image.Image) -> Image.Image:
    """A colour image with a palette: exact up to 256 colours, else the nearest."""
    if image.mode != "RGB":
        return image
    if image.getcolors(256) is None:
        return image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    # One number a pixel sorts far faster than rows of three.
    pixels = np.asarray(image).astype(np.uint32)
    codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    colours, index = np.unique(codes.ravel(), return_inverse=True)
    palette = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1)
    indexed = Image.fromarray(index.reshape(codes.shape).astype(np.uint8)).convert("P")
    indexed.putpalette(palette.astype(np.uint8).tobytes())
    return indexed
