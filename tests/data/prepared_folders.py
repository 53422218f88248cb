"""What tests of prepared folders share: the same clips, and work that is ended."""

import numpy as np

SPLITS = ("train", "validation", "test")


class Killed(BaseException):
    """What no part of the program expects."""


def stop_after(count):
    """A report that ends the work when it is told of the `count`-th time."""
    told = []

    def report(done, total):
        told.append(done)
        if len(told) == count:
            raise Killed

    return report


def no_report(done, total):
    """A report that nobody reads."""


def shards_of(folder):
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.glob("shard-*")
    }


def contents_of(folder):
    return {name: content for name, (_, content) in shards_of(folder).items()}


def assert_same_clips(one, other):
    for name in (
        "conditions",
        "classes",
        "class_counts",
        "height",
        "width",
        "channels",
    ):
        assert getattr(one, name) == getattr(other, name)
    for split in SPLITS:
        first, second = getattr(one, split), getattr(other, split)
        assert len(first) == len(second) > 0
        for index in range(len(first)):
            a, b = first[index], second[index]
            assert a.keys() == b.keys()
            for key in a:
                assert a[key].dtype == b[key].dtype
                np.testing.assert_array_equal(a[key], b[key])
