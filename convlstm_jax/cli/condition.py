"""A list of checks over several fields of a config."""

from collections.abc import Callable

# A check gets the values of its fields and returns None, or the problem.
Check = Callable[..., str | None]


class Conditions(list[tuple[tuple[str, ...], Check]]):
    """Checks, each with the fields it is of; `cli/validate.py` runs them.

    A check runs once each of its fields holds what it may hold by itself.
    """

    def over(self, *fields: str) -> Callable[[Check], Check]:
        """Decorates a check over some fields, given by their dotted paths."""

        def register(check: Check) -> Check:
            self.append((fields, check))
            return check

        return register
