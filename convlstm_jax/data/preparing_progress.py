"""How far a folder is prepared: one line for each shard, and the manifest of them all.

The first line of the file holds format, source and settings. Every other one belongs to
a shard that is whole, and holds what of which items went into it.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from convlstm_jax.data.pictures import reason
from convlstm_jax.data.prepared import (
    PROGRESS_FILE,
    VERSION,
    Kind,
    differing_settings,
    numbers_of,
)
from convlstm_jax.data.shard_writer import refused, write_whole
from convlstm_jax.data.video_readers import told_problem
from convlstm_jax.errors import UserError


class Progress:
    """What of a folder is prepared.

    Args:
      path: the file with the lines.
      listed: see `Kind`.

    Attributes:
      shards: "file", "records" and "bytes" of each that is whole.
      entries: by name, in the order in which the items were begun. Each has what its
        entries in the lines have, of which all but "end" (frames done), "pieces",
        "blank" and "error" are the same. "pieces" are [shard, record, first frame,
        count] here.
    """

    def __init__(self, path: Path, listed: str) -> None:
        self._path = path
        self._listed = listed
        self.shards: list[dict[str, Any]] = []
        self.entries: dict[str, dict[str, Any]] = {}

    @classmethod
    def open(cls, output: Path, head: Mapping[str, Any], kind: Kind) -> "Progress":
        """Reads how far a folder is, or begins a new one.

        Args:
          output: the folder; made if it is not there.
          head: "format", "source" and "settings", as the first line has them.
          kind: of what the folder is to be.

        Raises:
          UserError: the folder cannot be written to, holds something else, or was
            begun with another source or other settings.
        """
        path = output / PROGRESS_FILE
        progress = cls(path, kind.listed)
        first = json.dumps(head) + "\n"
        try:
            output.mkdir(parents=True, exist_ok=True)
            if not path.is_file():
                strange = sorted(entry.name for entry in output.iterdir())
                strange = [name for name in strange if not name.startswith(".")]
                if strange:
                    raise UserError(
                        f"'{output}' holds '{strange[0]}', but must be a new folder, "
                        "or one that --mode=prepare left unfinished."
                    )
                write_whole(path, first)
                return progress
            # A line that a crash cut short is not whole, and so its shard is not.
            text = path.read_text("utf-8")
            whole = text[: text.rfind("\n") + 1].splitlines()
            found = json.loads(whole[0])
            if found["settings"]["bad_files"] == "refuse":
                # Nothing is left out so far: what is to come may be.
                found["settings"]["bad_files"] = head["settings"]["bad_files"]
            check_same(output, found, head)
            lines = [json.loads(line) for line in whole[1:]]
        except OSError as error:
            raise refused(output, error) from error
        except (ValueError, IndexError, KeyError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            why = f"no {error}" if isinstance(error, KeyError) else reason(error)
            raise UserError(f"'{path}' cannot be read ({why}).") from error
        for line in lines:
            progress._take(line["shard"], line[kind.listed])
        kept = {shard["file"] for shard in progress.shards}
        try:
            for entry in output.glob("shard-*"):
                if entry.name not in kept:
                    entry.unlink()  # Whole, but its line never came to be written.
        except OSError as error:
            raise refused(output, error) from error
        write_whole(path, first + "".join(f"{line}\n" for line in whole[1:]))
        return progress

    def add(self, shard: dict[str, Any] | None, entries: list[dict[str, Any]]) -> None:
        """Writes down what went into a shard.

        Args:
          shard: "file", "records" and "bytes"; None if nothing could be read.
          entries: the items, whole or in part.

        Raises:
          UserError: the disk is full, or refuses otherwise.
        """
        line = json.dumps({"shard": shard, self._listed: entries})
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise refused(self._path.parent, error) from error
        self._take(shard, entries)

    def _take(
        self, shard: dict[str, Any] | None, entries: list[dict[str, Any]]
    ) -> None:
        number = len(self.shards)
        if shard is not None:
            self.shards.append(shard)
        for entry in entries:
            pieces = [[number, *piece] for piece in entry["pieces"]]
            whole = self.entries.setdefault(
                entry["name"], {**entry, "pieces": [], "blank": []}
            )
            whole["pieces"] += pieces
            whole["blank"] += entry["blank"]
            whole["end"] = entry["end"]
            whole["error"] = whole["error"] or entry["error"]


def check_same(output: Path, found: Mapping[str, Any], head: Mapping[str, Any]) -> None:
    """Checks that a folder was begun with the format, source and settings of now.

    Raises:
      UserError: naming all that differs.
    """
    there, here = (
        {"format": one.get("format"), "source": one["source"], **one["settings"]}
        for one in (found, head)
    )
    differing = differing_settings(there, here)
    if differing:
        raise UserError(
            f"'{output}' was begun with other settings, so give the same or choose "
            f"another folder: {', '.join(differing)}."
        )


def manifest_of(
    head: Mapping[str, Any],
    kind: Kind,
    progress: Progress,
    left_out: Mapping[str, Sequence[str]],
    judge: Callable[[list[dict[str, Any]]], None],
) -> dict[str, Any]:
    """The manifest of a folder that is whole, see `prepared` and `preparing.Work`."""
    entries = []
    for item in progress.entries.values():
        readable = sorted(numbers_of([piece[2:] for piece in item["pieces"]]))
        problem = item["error"]  # Of an item that could not be opened.
        if item["frames"]:
            problem = told_problem(item["cut"], item["frames"], readable, item["error"])
        of_the_work = ("frames", "pieces", "blank", "end", "cut", "error")
        entries.append(
            {
                **{name: item[name] for name in item if name not in of_the_work},
                "frames": item["frames"],
                "frames_left_out": item["frames"] - len(readable),
                "problem": problem,
                "blank": item["blank"],
                "pieces": item["pieces"],
            }
        )
    judge(entries)
    return {
        "format": head["format"],
        "version": VERSION,
        "source": head["source"],
        "settings": head["settings"],
        "left_out": left_out,
        "counts": _counts(entries, kind, left_out),
        "shards": progress.shards,
        kind.listed: entries,
    }


def leave_out(entry: dict[str, Any], reason: str, problem: str) -> None:
    """Leaves an entry of the manifest out whose frames could be read.

    Args:
      entry: the entry; it gets "left_out" besides.
      reason: why, in a few words that it may share with others.
      problem: a sentence on it.
    """
    entry |= {
        "frames_left_out": entry["frames"],
        "problem": problem,
        "blank": [],
        "pieces": [],
        "left_out": reason,
    }


def _counts(
    entries: Sequence[Mapping[str, Any]],
    kind: Kind,
    left_out: Mapping[str, Sequence[str]],
) -> dict[str, int]:
    used = [entry for entry in entries if entry["pieces"]]
    frames_left_out = sum(entry["frames_left_out"] for entry in entries)
    blank = [sum(count for _, count in entry["blank"]) for entry in used]
    kept = [entry["frames"] - entry["frames_left_out"] for entry in used]
    return {
        kind.listed: len(entries),
        f"{kind.listed}_left_out": len(entries) - len(used),
        f"{kind.listed}_in_part": sum(bool(entry["problem"]) for entry in used),
        "other_files_left_out": sum(map(len, left_out.values())),
        "frames": sum(kept),
        "frames_left_out": frames_left_out,
        "frames_blank": sum(blank),
        f"{kind.listed}_all_blank": sum(
            count == of for count, of in zip(blank, kept, strict=True)
        ),
    }


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """The manifest as JSON with a line for each shard and each entry."""

    def told(value: Any) -> str:
        if not isinstance(value, list):
            return json.dumps(value)
        lines = ",\n".join(json.dumps(entry) for entry in value)
        return f"[\n{lines}\n]"

    fields = [f"{json.dumps(name)}: {told(value)}" for name, value in manifest.items()]
    return "{\n" + ",\n".join(fields) + "\n}\n"
