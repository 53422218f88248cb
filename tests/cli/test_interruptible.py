import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from convlstm_jax.cli.interruptible import interruptible

ROOT = Path(__file__).parents[2]


class RaisesWhenDeleted:
    def __init__(self, error):
        self.error = error

    def __del__(self):
        raise self.error


@pytest.fixture
def told(monkeypatch):
    """What the former `sys.unraisablehook` is told."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_type))
    return told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_an_exception_and_the_former_handler_comes_back(number):
    former = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), interruptible():
            os.kill(os.getpid(), number)
            time.sleep(5)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, former)


def test_an_interrupt_that_python_ignored_comes_again(told):
    former = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), interruptible():
        RaisesWhenDeleted(KeyboardInterrupt())
        time.sleep(5)
    assert not told
    assert sys.unraisablehook is former


def test_other_ignored_errors_are_told_as_ever(told):
    with interruptible():
        RaisesWhenDeleted(OSError())
    assert told == [OSError]


def test_an_ignored_ctrl_c_stays_ignored():
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, former)


def test_other_threads_change_nothing():
    former = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with interruptible():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [former]


def test_the_program_ends_at_once_and_quietly_while_it_starts(tmp_path):
    arguments = ("--config=configs/moving_mnist.py:quick", f"--workdir={tmp_path}")
    process = subprocess.Popen(
        [sys.executable, "main.py", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    # The folder is named before JAX is imported, which is then under way.
    assert process.stdout.readline().startswith("workdir: ")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130)
    assert errors == ""
