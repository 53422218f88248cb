"""Prepared folders: decoded frames in a folder of the user's choice, and a manifest.

`frames/` is a cache of frames without a limit (see `cache`); `manifest.json` names what
lies in it. Until a folder is whole it has a `progress.json` in place of the manifest,
and the same command goes on where it stopped.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic

from convlstm_jax.atomic_file import replacing
from convlstm_jax.data.cache import CacheError, FrameCache, Frames
from convlstm_jax.data.files import reason
from convlstm_jax.errors import UserError

MANIFEST_FILE = "manifest.json"
PROGRESS_FILE = "progress.json"

_FORMAT, _OLD_FORMAT = "convlstm_jax frames", "convlstm_jax prepared"

_PACKAGES = ("convlstm_jax", "numpy", "pillow", "av", "xarray", "h5netcdf", "zarr",
             "pysteps")  # fmt: skip

KINDS = {
    "video": "videos",
    "annotated_video": "annotated videos",
    "radar": "radar composites",
}
"""What a prepared folder may be of, by the name of the data set, in words."""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("it must be a text")
    return value


# Pydantic's own texts hold no names that are not Unicode, as files may have.
_Text = Annotated[str, pydantic.PlainValidator(_text)]


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class Item(_Strict):
    """A named sequence of frames; `entry` is "" if nothing of it could be read."""

    name: _Text
    entry: str = pydantic.Field(pattern=r"^([0-9a-f]{40})?$")
    facts: dict[str, Any]


class Head(_Strict):
    """What a prepared folder is made from."""

    format: Literal["convlstm_jax frames"] = "convlstm_jax frames"
    version: Literal[3] = 3
    kind: Literal["video", "annotated_video", "radar"]
    source: _Text
    settings: dict[str, Any]


class Manifest(Head):
    """What a prepared folder holds; what is left out are files that are no items."""

    items: list[Item]
    left_out: dict[str, list[_Text]]
    counts: dict[str, int]
    versions: dict[str, str]


_HeadT = TypeVar("_HeadT", bound=Head)


class Prepared:
    """A prepared folder that is whole, opened for reading.

    Raises:
        UserError: it is not whole, of another kind or version, damaged, or settings
            differ; the message names every one.
    """

    def __init__(
        self, path: str | Path, kind: str, settings: Mapping[str, Any]
    ) -> None:
        self.folder = Path(path).expanduser()
        self.manifest = _read_manifest(self.folder)
        self._cache = FrameCache(self.folder / "frames")
        if self.manifest.kind != kind:
            raise UserError(
                f"'{self.folder}' is prepared from {KINDS[self.manifest.kind]}: it "
                f"must be from {KINDS[kind]}"
            )
        differing = _differing(self.manifest.settings, settings)
        if differing:
            raise UserError(
                f"'{self.folder}' was prepared with other settings, so give the same "
                f"or prepare another folder: {differing}"
            )

    def frames(self, item: Item) -> Frames | None:
        """The frames of an item; None if nothing of it could be read.

        Raises:
            CacheError: they are not there whole.
        """
        found = self._cache.find(item.entry) if item.entry else None
        if item.entry and found is None:
            raise CacheError(
                f"'{self._cache.folder / item.entry}', the frames of '{item.name}', is "
                "damaged or gone: run the same command of --mode=prepare again"
            )
        return found


def is_prepared(path: str | Path) -> bool:
    """Whether a folder is a prepared one, be it in part or of an earlier version."""
    return bool(_format_of(Path(path).expanduser()))


def kind_of(path: str | Path) -> str:
    """The name of the data set a prepared folder is of; "" if it does not tell."""
    for name in (MANIFEST_FILE, PROGRESS_FILE):
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = (Path(path).expanduser() / name).read_bytes()
            found = json.loads(content)["kind"]
            return found if found in KINDS else ""
    return ""


def _format_of(folder: Path) -> str:
    for name in (MANIFEST_FILE, PROGRESS_FILE, "progress.jsonl"):
        with suppress(OSError), (folder / name).open("rb") as file:
            head = file.read(200).decode("utf-8", "replace")
            for one in (_FORMAT, _OLD_FORMAT):
                if f'"{one}' in head:
                    return one
    return ""


def _read_manifest(folder: Path) -> Manifest:
    _refuse_old(folder)
    if not (folder / MANIFEST_FILE).is_file():
        raise UserError(
            f"'{folder}' is not prepared to its end: run the same command of "
            "--mode=prepare again, which goes on where it stopped"
        )
    return _read(folder / MANIFEST_FILE, Manifest)


def _refuse_old(folder: Path) -> None:
    if _format_of(folder) == _OLD_FORMAT:
        raise UserError(
            f"'{folder}' was prepared by an earlier version of this program, in shards "
            "that are no longer read: prepare another folder"
        )


def _read(path: Path, kind: type[_HeadT]) -> _HeadT:
    try:
        return kind.model_validate(json.loads(path.read_bytes()))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, ValueError) as error:
        why = reason(error)
    raise UserError(f"'{path}' cannot be read ({why}): prepare another folder")


def _differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The settings that differ, each with both values."""
    return ", ".join(
        f"{name} is {found.get(name)!r} there and {value!r} here"
        for name, value in wanted.items()
        if found.get(name) != value
    )


class Preparing:
    """A prepared folder while it is written; see `preparing`.

    Attributes:
        cache: takes the frames.
        left_out: see `Manifest`.
        manifest: what was written; None before the end.
    """

    def __init__(self, output: Path, head: Head, before: Manifest | None) -> None:
        self._output = output
        self._head = head
        self._before = before
        self._items: list[Item] = []
        self._num_frames = 0
        self.cache = FrameCache(output / "frames")
        self.left_out: dict[str, list[str]] = {}
        self.manifest: Manifest | None = None

    def add(self, name: str, frames: Frames | None, facts: Mapping[str, Any]) -> None:
        """Adds an item; no frames if nothing could be read, facts as JSON has them."""
        entry = "" if frames is None else frames.folder.name
        self._items.append(Item(name=name, entry=entry, facts=dict(facts)))
        self._num_frames += 0 if frames is None else len(frames)

    def finish(self) -> None:
        """Writes the manifest.

        Raises:
            UserError: the folder was prepared from other items.
        """
        if self._before is not None:
            self._check_same_items(self._before.items)
        lacking = sum(not item.entry for item in self._items)
        counts = {"items": len(self._items), "items_left_out": lacking}
        self.manifest = Manifest(
            **self._head.model_dump(),
            items=self._items,
            left_out=self.left_out,
            counts=counts | {"frames": self._num_frames},
            versions=_versions(),
        )
        fields = {k: json.dumps(v) for k, v in self.manifest.model_dump().items()}
        lines = [json.dumps(item.model_dump()) for item in self._items]
        fields["items"] = "[\n" + ",\n".join(lines) + "\n]"
        text = ",\n".join(f'"{name}": {value}' for name, value in fields.items())
        _write(self._output / MANIFEST_FILE, f"{{\n{text}\n}}\n")
        (self._output / PROGRESS_FILE).unlink(missing_ok=True)

    def _check_same_items(self, before: Sequence[Item]) -> None:
        here = [item.name for item in self._items]
        for old, new in zip_longest(before, self._items):
            if old == new:
                continue
            if old and new and old.name == new.name:
                change = f"'{new.name}' has changed"
            elif new and (not old or old.name in here):
                change = f"'{new.name}' is new"
            else:
                change = f"'{old.name}' is gone"
            raise UserError(
                f"'{self._output}' was prepared from other "
                f"{KINDS[self._head.kind]} ({change} since), so prepare another folder"
            )


@contextmanager
def preparing(
    output: Path, kind: str, source: str, settings: Mapping[str, Any]
) -> Iterator[Preparing]:
    """Opens a folder for writing: a new one, or one that was left unfinished.

    At the end of the block the manifest is written. The settings, as JSON has them, are
    what shapes the frames.

    Raises:
        UserError: the folder cannot be written to, holds something else, or was begun
            with another source or other settings.
    """
    head = Head(
        kind=kind,  # type: ignore[arg-type]
        source=str(Path(source).expanduser().resolve()),
        settings=dict(settings),
    )
    _refuse_old(output)
    before: Manifest | None = None
    found: Head | None = None
    if (output / MANIFEST_FILE).is_file():
        found = before = _read_manifest(output)
    elif (output / PROGRESS_FILE).is_file():
        found = _read(output / PROGRESS_FILE, Head)
    elif output.is_dir():
        strange = sorted(e.name for e in output.iterdir() if e.name[:1] != ".")
        if strange:
            raise UserError(
                f"'{output}' holds '{strange[0]}': it must be a new folder, or one "
                "that --mode=prepare left unfinished"
            )
    if found is None:
        _write(output / PROGRESS_FILE, json.dumps(head.model_dump()))
    else:
        there, here = (
            {"kind": one.kind, "source": one.source, **one.settings}
            for one in (found, head)
        )
        differing = _differing(there, here)
        if differing:
            raise UserError(
                f"'{output}' was begun with other settings, so give the same or choose "
                f"another folder: {differing}"
            )
    folder = Preparing(output, head, before)
    yield folder
    folder.finish()


def _write(path: Path, text: str) -> None:
    try:
        with replacing(path) as partial:
            partial.write_text(text, "utf-8")
    except OSError as error:
        raise UserError(
            f"'{path.parent}' cannot be written to ({reason(error)}): make room, or "
            "choose another folder with --output"
        ) from error


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions
