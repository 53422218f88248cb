"""The name a user probably meant."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ` (did you mean X?)` for the known name nearest to `name`, or "".

    Dotted names are also compared by their last part alone, so that `batch_size` and
    `config.trian.batch_size` both find `config.train.batch_size`.

    Args:
        name: the name as typed.
        known: the names that would have been right.
    """
    names = list(known)
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.8)
    if not matches:
        last = name.rpartition(".")[2]
        by_last_part: dict[str, list[str]] = {}
        for candidate in names:
            by_last_part.setdefault(candidate.rpartition(".")[2], []).append(candidate)
        parts = difflib.get_close_matches(last, by_last_part, n=1, cutoff=0.7)
        # Sections share some last parts (`name`): the nearest whole name wins.
        candidates = by_last_part[parts[0]] if parts else names
        matches = difflib.get_close_matches(
            name, candidates, n=1, cutoff=0.0 if parts else 0.6
        )
    return f" (did you mean {matches[0]}?)" if matches else ""
