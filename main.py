"""Trains, evaluates and runs convolutional LSTMs; `python main.py --help` tells how."""

import signal
import sys

if __name__ == "__main__":  # Data workers import this file again and must not train.
    # While it starts, Ctrl-C ends the program like any other; see cli/process.py.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from convlstm_jax.cli.entry import main

    sys.exit(main(sys.argv))
