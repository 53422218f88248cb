"""Folders of decoded frames: `frames/`, a cache without limit, and `manifest.json`.

An unfinished folder has a `progress.json` instead; the same command resumes.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic

from convlstm_jax.atomic_file import replacing
from convlstm_jax.data.cache import FrameCache, Frames
from convlstm_jax.data.files import reason
from convlstm_jax.errors import UserError
from convlstm_jax.paths import local_path, read_json, seal, unseal

MANIFEST_FILE = "manifest.json"
PROGRESS_FILE = "progress.json"

_PACKAGES = ("convlstm_jax", "numpy", "pillow", "av", "xarray", "h5netcdf", "zarr",
             "pysteps")  # fmt: skip

KINDS = {
    "video": "videos",
    "annotated_video": "annotated videos",
    "radar": "radar composites",
}
"""The data sets that can be prepared, by name, and what they are made of."""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("it must be a text")
    return value


# Pydantic's own `str` refuses file names that are not Unicode.
_Text = Annotated[str, pydantic.PlainValidator(_text)]


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class Item(_Strict):
    """A named sequence of frames; `entry` is "" if none of it could be read."""

    name: _Text
    entry: str = pydantic.Field(pattern=r"^([0-9a-f]{40})?$")
    facts: dict[str, Any]


class Head(_Strict):
    """What a prepared folder is made from."""

    format: Literal["convlstm_jax frames"] = "convlstm_jax frames"
    version: Literal[4] = 4
    kind: Literal["video", "annotated_video", "radar"]
    source: _Text
    settings: dict[str, Any]


class Manifest(Head):
    """What a prepared folder holds; `left_out` are files that are not items."""

    items: list[Item]
    left_out: dict[str, list[_Text]]
    counts: dict[str, int]
    versions: dict[str, str]


_HeadT = TypeVar("_HeadT", bound=Head)


def read_prepared(
    path: str | Path, kind: str, settings: Mapping[str, Any]
) -> tuple[Manifest, list[Frames | None]]:
    """Opens a prepared folder: its manifest, and the frames of each item.

    Raises a `UserError` if it is incomplete, damaged, of another kind or version, or
    settings differ.
    """
    folder = local_path(path)
    if not (folder / MANIFEST_FILE).is_file():
        raise UserError(
            f"'{folder}' is not prepared completely: run the same command of "
            "--mode=prepare again, which resumes"
        )
    manifest = _read(folder / MANIFEST_FILE, Manifest)
    if manifest.kind != kind:
        raise UserError(
            f"'{folder}' is prepared from {KINDS[manifest.kind]}: it must be from "
            f"{KINDS[kind]}"
        )
    _check_same(
        f"'{folder}' was prepared with other settings, so give the same or prepare "
        "another folder",
        manifest.settings,
        settings,
    )
    cache = FrameCache(folder / "frames")
    found = [cache.find(item.entry) if item.entry else None for item in manifest.items]
    for item, frames in zip(manifest.items, found, strict=True):
        if item.entry and frames is None:
            raise UserError(
                f"'{cache.folder / item.entry}', the frames of '{item.name}', is "
                "damaged or gone: run the same command of --mode=prepare again"
            )
    return manifest, found


def is_prepared(path: str | Path) -> bool:
    """Whether a folder was prepared, also partially or by an earlier version."""
    for name in (MANIFEST_FILE, PROGRESS_FILE):
        with suppress(OSError), (local_path(path) / name).open("rb") as file:
            if b'"format": "convlstm_jax ' in file.read(200):
                return True
    return False


def _read(path: Path, kind: type[_HeadT]) -> _HeadT:
    try:
        return kind.model_validate(unseal(read_json(path)))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, ValueError) as error:
        why = reason(error)
    raise UserError(f"'{path}' cannot be read ({why}): prepare another folder")


def _check_same(
    message: str, found: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    """Raises a `UserError` that ends with the settings that differ."""
    differing = [
        f"{name} is {found.get(name)!r} there and {value!r} here"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if differing:
        raise UserError(f"{message}: {', '.join(differing)}")


Decoded = tuple[list[tuple[str, Frames | None, dict[str, Any]]], dict[str, list[str]]]
"""Name, frames and facts (JSON) of each item, and what is left out by the reason."""


def prepare(
    output: Path,
    kind: str,
    source: str,
    settings: Mapping[str, Any],
    decode: Callable[[FrameCache], Decoded],
) -> Manifest:
    """Decodes frames into a new or unfinished folder and writes its manifest.

    `kind` is a key of `KINDS`, `source` the folder that is prepared, and `settings`
    what determines the frames, as JSON. Raises a `UserError` if the folder cannot be
    written to, holds something else, or was started with another source or settings.
    """
    head = Head(
        kind=kind,  # type: ignore[arg-type]
        source=str(local_path(source).resolve()),
        settings=dict(settings),
    )
    before: Manifest | None = None
    found: Head | None = None
    if (output / MANIFEST_FILE).is_file():
        found = before = _read(output / MANIFEST_FILE, Manifest)
    elif (output / PROGRESS_FILE).is_file():
        found = _read(output / PROGRESS_FILE, Head)
    elif output.is_dir():
        others = sorted(e.name for e in output.iterdir() if e.name[:1] != ".")
        if others:
            raise UserError(
                f"'{output}' holds '{others[0]}': it must be a new folder, or an "
                "unfinished one of --mode=prepare"
            )
    if found is None:
        _write(output / PROGRESS_FILE, head)
    else:
        _check_same(
            f"'{output}' was started with other settings, so give the same or choose "
            "another folder",
            {"kind": found.kind, "source": found.source, **found.settings},
            {"kind": head.kind, "source": head.source, **head.settings},
        )
    decoded, left_out = decode(FrameCache(output / "frames"))
    items = [
        Item(name=name, entry="" if frames is None else frames.folder.name, facts=facts)
        for name, frames, facts in decoded
    ]
    if before is not None:
        _check_same_items(output, kind, before.items, items)
    manifest = Manifest(
        **head.model_dump(),
        items=items,
        left_out=left_out,
        counts={
            "items": len(items),
            "items_left_out": sum(not item.entry for item in items),
            "frames": sum(len(frames) for _, frames, _ in decoded if frames),
        },
        versions={
            one.name.lower(): one.version
            for one in distributions()
            if one.name.lower() in _PACKAGES
        },
    )
    _write(output / MANIFEST_FILE, manifest)
    (output / PROGRESS_FILE).unlink(missing_ok=True)
    return manifest


def _check_same_items(
    output: Path, kind: str, before: Sequence[Item], after: Sequence[Item]
) -> None:
    old, new = ({item.name: item for item in items} for items in (before, after))
    for name in sorted(old | new):
        if old.get(name) != new.get(name):
            change = "is gone" if name not in new else "has changed"
            change = "is new" if name not in old else change
            raise UserError(
                f"'{output}' was prepared from other {KINDS[kind]} ('{name}' {change} "
                "since), so prepare another folder"
            )


def _write(path: Path, head: Head) -> None:
    try:
        with replacing(path) as partial:
            partial.write_text(json.dumps(seal(head.model_dump()), indent=1), "utf-8")
    except OSError as error:
        raise UserError(
            f"'{path.parent}' cannot be written to ({reason(error)}): make room, or "
            "choose another folder with --output"
        ) from error
