"""The command line: flags, configs, and a module for each mode."""

import signal
import sys


def console() -> None:
    """Runs the command line of this process and ends it; imports the rest late."""
    # While it starts, Ctrl-C ends the program like any other; see `cli.process`.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from convlstm_jax.cli.entry import main
    except ModuleNotFoundError as error:
        print(f"error: {missing_package(error)}", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(sys.argv))


def missing_package(error: ModuleNotFoundError) -> str:
    """The sentence about a package that is not installed; raises other errors."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "convlstm_jax"):
        raise error
    return (
        f"this needs {package}, which is not installed: "
        "pip install 'convlstm_jax[data]'"
    )
