"""Trains, evaluates and runs convolutional LSTMs; `python main.py --help` tells how."""

if __name__ == "__main__":  # Data workers import this file again and must not train.
    from convlstm_jax.cli import console

    console()
