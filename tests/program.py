"""The program as a function, for the tests of its modes."""

from convlstm_jax.cli.entry import main


def run(*arguments):
    """The exit code of `main.py` with these arguments."""
    return main(["main.py", *map(str, arguments)])
