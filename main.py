"""Trains, evaluates and runs convolutional LSTMs; `python main.py --help` tells how."""

import sys

if __name__ == "__main__":  # Data workers import this file again and must not train.
    from convlstm_jax.cli.entry import main

    sys.exit(main(sys.argv))
