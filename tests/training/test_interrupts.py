import os
import signal
import threading

import pytest

from convlstm_jax.training.interrupts import graceful_interrupts

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS)
def test_first_signal_sets_the_flag(number, capsys):
    with graceful_interrupts() as interrupts:
        assert not interrupts.requested
        os.kill(os.getpid(), number)
        assert interrupts.requested
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        "Interrupted: finishing the step and saving; "
        "press Ctrl-C again to stop at once\n"
    )


@pytest.mark.parametrize("number", SIGNALS)
def test_second_signal_stops_at_once(number):
    with pytest.raises(KeyboardInterrupt), graceful_interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), number)


def test_former_handlers_come_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(RuntimeError, match="from the loop"), graceful_interrupts():
        assert [signal.getsignal(number) for number in SIGNALS] != before
        raise RuntimeError("from the loop")
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_another_thread_gets_an_idle_flag():
    before = [signal.getsignal(number) for number in SIGNALS]
    seen = []

    def work():
        with graceful_interrupts() as interrupts:
            seen.append([signal.getsignal(number) for number in SIGNALS])
            seen.append(interrupts.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, False]
