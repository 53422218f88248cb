"""Frames as patches: space to channels and back."""

from jaxtyping import Float

from convlstm_jax.ops.explicit_mesh import over_batch
from convlstm_jax.types import Array, Video

Patches = Float[Array, "B T R S D"]


def to_patches(video: Video, patch_size: int) -> Patches:
    """Turns every P×P patch into the channels of one pixel.

    `[B, T, H, W, C]` becomes `[B, T, H/P, W/P, P·P·C]`; the channel index is (row in
    patch, column, channel).

    Raises:
        ValueError: P does not divide H and W.
    """
    batch, time, height, width, channels = video.shape
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(
            f"patch_size is {patch_size}: it must divide the frame's height and width, "
            f"{height}×{width} pixels"
        )
    rows, columns = height // patch_size, width // patch_size

    def cut(_: None, video: Video) -> Patches:
        patches = video.reshape(
            batch, time, rows, patch_size, columns, patch_size, channels
        )
        return patches.swapaxes(3, 4).reshape(
            batch, time, rows, columns, patch_size * patch_size * channels
        )

    return over_batch(cut, None, video)


def from_patches(patches: Patches, patch_size: int) -> Video:
    """The inverse of `to_patches`."""
    batch, time, rows, columns, depth = patches.shape
    channels = depth // (patch_size * patch_size)

    def join(_: None, patches: Patches) -> Video:
        video = patches.reshape(
            batch, time, rows, columns, patch_size, patch_size, channels
        )
        return video.swapaxes(3, 4).reshape(
            batch, time, rows * patch_size, columns * patch_size, channels
        )

    return over_batch(join, None, patches)
