"""Mistakes of the user, and how they are worded."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in a config, a flag or the data: what is wrong and what is allowed."""


def raise_problems(problems: list[str], header: str) -> None:
    """Raises problems as one `UserError`: a sentence, or a header and a line each."""
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        raise UserError("\n  ".join([f"{len(problems)} {header}:", *problems]))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ` (did you mean X?)` for the known name nearest to `name`, or "".

    Dotted names are also compared by their last part alone, so that `batch_size` and
    `config.trian.batch_size` both find `config.train.batch_size`.
    """
    names = list(known)
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.8)
    if not matches:
        last_parts = {known.rpartition(".")[2] for known in names}
        last = name.rpartition(".")[2]
        parts = difflib.get_close_matches(last, last_parts, n=1, cutoff=0.7)
        # Sections share some last parts (`name`): the nearest whole name wins.
        candidates = [known for known in names if known.rpartition(".")[2] in parts]
        matches = difflib.get_close_matches(
            name, candidates or names, n=1, cutoff=0.0 if candidates else 0.6
        )
    return f" (did you mean {matches[0]}?)" if matches else ""
