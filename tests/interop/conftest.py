"""The peers, imported once, and why tests skip where they are not installed."""

import os

import pytest

_REASON = "needs {}: pip install -r requirements-parity.txt"


def peer(name):
    # `importorskip` keeps the warnings of what it imports to itself.
    return pytest.importorskip(name, reason=_REASON.format(name))


@pytest.fixture(scope="session")
def torch():
    return peer("torch")


@pytest.fixture(scope="session")
def tensorflow():
    os.environ["KERAS_BACKEND"] = "tensorflow"
    return peer("tensorflow")


@pytest.fixture(scope="session")
def keras(tensorflow):
    return peer("keras")
