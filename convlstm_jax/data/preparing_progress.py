"""How far a folder is prepared: one line for each shard, and the manifest of them all.

The first line of the file holds the source and the settings. Every other one belongs to
a shard that is whole, and holds what of which videos went into it.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convlstm_jax.data.pictures import reason
from convlstm_jax.data.prepared import (
    FORMAT,
    PROGRESS_FILE,
    VERSION,
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

    Attributes:
      shards: "file", "records" and "bytes" of each that is whole.
      videos: by name, in the order in which they were begun. Each has what its entries
        have, of which all but "end" (frames done), "pieces", "blank" and "error" are
        the same. "pieces" are [shard, record, first frame, count] here.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.shards: list[dict[str, Any]] = []
        self.videos: dict[str, dict[str, Any]] = {}

    @classmethod
    def open(cls, output: Path, head: Mapping[str, Any]) -> "Progress":
        """Reads how far a folder is, or begins a new one.

        Args:
          output: the folder; made if it is not there.
          head: "source" and "settings", as the first line has them.

        Raises:
          UserError: the folder cannot be written to, holds something else, or was
            begun with another source or other settings.
        """
        path = output / PROGRESS_FILE
        progress = cls(path)
        first = json.dumps(head, ensure_ascii=False) + "\n"
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
            lines = [json.loads(line) for line in whole[1:]]
        except OSError as error:
            raise refused(output, error) from error
        except (ValueError, IndexError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"'{path}' cannot be read ({reason(error)}).") from error
        if found["settings"]["bad_files"] == "refuse":
            # Nothing is left out so far: what is to come may be.
            found["settings"]["bad_files"] = head["settings"]["bad_files"]
        check_same(output, found, head)
        for line in lines:
            progress._take(line["shard"], line["videos"])
        kept = {shard["file"] for shard in progress.shards}
        try:
            for entry in output.glob("shard-*"):
                if entry.name not in kept:
                    entry.unlink()  # Whole, but its line never came to be written.
        except OSError as error:
            raise refused(output, error) from error
        write_whole(path, first + "".join(f"{line}\n" for line in whole[1:]))
        return progress

    @property
    def names(self) -> list[str]:
        """Names of the videos that are done, the last of them perhaps in part."""
        return list(self.videos)

    def add(self, shard: dict[str, Any] | None, entries: list[dict[str, Any]]) -> None:
        """Writes down what went into a shard.

        Args:
          shard: "file", "records" and "bytes"; None if nothing could be read.
          entries: the videos, whole or in part.

        Raises:
          UserError: the disk is full, or refuses otherwise.
        """
        line = json.dumps({"shard": shard, "videos": entries}, ensure_ascii=False)
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
            video = self.videos.setdefault(
                entry["name"], {**entry, "pieces": [], "blank": []}
            )
            video["pieces"] += pieces
            video["blank"] += entry["blank"]
            video["end"] = entry["end"]
            video["error"] = video["error"] or entry["error"]


def check_same(output: Path, found: Mapping[str, Any], head: Mapping[str, Any]) -> None:
    """Checks that a folder was begun with the source and settings of now.

    Raises:
      UserError: naming all that differs.
    """
    there, here = (
        {"source": one["source"], **one["settings"]} for one in (found, head)
    )
    differing = differing_settings(there, here)
    if differing:
        raise UserError(
            f"'{output}' was begun with other settings, so give the same or choose "
            f"another folder: {', '.join(differing)}."
        )


def manifest_of(head: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The manifest of a folder that is whole, see `prepared`."""
    videos = []
    for video in progress.videos.values():
        readable = sorted(numbers_of([piece[2:] for piece in video["pieces"]]))
        problem = video["error"]  # Of a video that could not be opened.
        if video["frames"]:
            problem = told_problem(
                video["cut"], video["frames"], readable, video["error"]
            )
        kept = {name: video[name] for name in ("name", "condition", "sha256", "bytes")}
        videos.append(
            {
                **kept,
                "frames": video["frames"],
                "frames_left_out": video["frames"] - len(readable),
                "problem": problem,
                "blank": video["blank"],
                "pieces": video["pieces"],
            }
        )
    frames = sum(video["frames"] for video in videos)
    left_out = sum(video["frames_left_out"] for video in videos)
    counts = {
        "videos": len(videos),
        "videos_left_out": sum(not video["pieces"] for video in videos),
        "videos_in_part": sum(
            bool(video["problem"] and video["pieces"]) for video in videos
        ),
        "frames": frames - left_out,
        "frames_left_out": left_out,
        "frames_blank": sum(count for video in videos for _, count in video["blank"]),
        "videos_all_blank": sum(
            bool(video["pieces"])
            and sum(count for _, count in video["blank"])
            == video["frames"] - video["frames_left_out"]
            for video in videos
        ),
    }
    return {
        "format": FORMAT,
        "version": VERSION,
        **head,
        "counts": counts,
        "shards": progress.shards,
        "videos": videos,
    }


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """The manifest as JSON with a line for each shard and each video."""

    def told(value: Any) -> str:
        if not isinstance(value, list):
            return json.dumps(value, ensure_ascii=False)
        lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in value)
        return f"[\n{lines}\n]"

    fields = [f"{json.dumps(name)}: {told(value)}" for name, value in manifest.items()]
    return "{\n" + ",\n".join(fields) + "\n}\n"
