"""The tensorflow-datasets builder, fed by a small server on this machine."""

import functools
import gzip
import hashlib
import http.server
import struct
import sys
import threading
import time

import numpy as np
import pytest
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.download.checksums import UrlInfo

from convlstm_jax.data.synthetic import mnist_builder
from convlstm_jax.data.synthetic.digits import FOLDER_VARIABLE, load_digits
from convlstm_jax.errors import UserError


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served_mnist(tmp_path, monkeypatch):
    """MNIST in small at a local address; yields the images and a way to shut down."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    # A proxy of the machine's must not be asked for a local address.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    generator = np.random.default_rng(0)
    images, infos = [], {}
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder))
    )
    for name, count in (("train", 2500), ("t10k", 30)):
        images.append(generator.integers(0, 256, (count, 28, 28), np.uint8))
        content = gzip.compress(
            struct.pack(">4I", 2051, count, 28, 28) + images[-1].tobytes(), 1
        )
        filename = f"{name}-images-idx3-ubyte.gz"
        (folder / filename).write_bytes(content)
        infos[f"http://127.0.0.1:{server.server_port}/{filename}"] = UrlInfo(
            size=len(content),
            checksum=hashlib.sha256(content).hexdigest(),
            filename=filename,
        )
    monkeypatch.setattr(mnist_builder.MnistDigits, "url_infos", infos)
    monkeypatch.setattr(mnist_builder, "_TRAIN_URL", next(iter(infos)))
    monkeypatch.setattr(mnist_builder, "_TEST_URL", list(infos)[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield images, folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_downloads_once_in_order_without_tensorflow(served_mnist, tmp_path):
    (train, test), folder = served_mnist
    retries = downloader.MAX_RETRIES
    had_tensorflow = "tensorflow" in sys.modules
    digits = load_digits("tfds", tfds_dir=str(tmp_path / "cache"))
    assert digits.source == "tfds"
    # 2,500 is not a multiple of the digits in a record.
    np.testing.assert_array_equal(
        np.concatenate([digits.train, digits.validation]), train
    )
    assert len(digits.validation) == 2500 // 6
    np.testing.assert_array_equal(digits.test, test)
    assert "tensorflow-datasets" in digits.description
    assert retries == downloader.MAX_RETRIES
    assert had_tensorflow == ("tensorflow" in sys.modules)
    # From now on the cache serves: the address may be gone.
    for path in folder.iterdir():
        path.unlink()
    again = load_digits("auto", tfds_dir=str(tmp_path / "cache"))
    assert again.source == "tfds"
    np.testing.assert_array_equal(again.train, digits.train)


def test_other_bytes_are_refused(served_mnist, tmp_path):
    _, folder = served_mnist
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match="are not the published ones"):
        load_digits("tfds", tfds_dir=str(tmp_path / "cache"))
    assert load_digits("auto", tfds_dir=str(tmp_path / "cache")).source == "sklearn"


def test_no_answer_is_told(served_mnist, tmp_path):
    _, folder = served_mnist
    (folder / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"cannot be reached \(HTTPError\); name a fol"):
        load_digits("tfds", tfds_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("head_answers", [False, True])
def test_without_network_it_fails_fast(
    served_mnist, tmp_path, monkeypatch, head_answers
):
    # Nothing listens on the discard port: the connection is refused.
    url = "http://127.0.0.1:9/t10k-images-idx3-ubyte.gz"
    infos = mnist_builder.MnistDigits.url_infos
    monkeypatch.setitem(infos, url, infos[mnist_builder._TEST_URL])
    if head_answers:
        answer = mnist_builder.requests.head(mnist_builder._TEST_URL)
        monkeypatch.setattr(
            mnist_builder.requests, "head", lambda *arguments, **keywords: answer
        )
    monkeypatch.setattr(mnist_builder, "_TEST_URL", url)
    start = time.perf_counter()
    with pytest.raises(UserError, match=rf"{url} cannot be reached \(Conn"):
        load_digits("tfds", tfds_dir=str(tmp_path / "cache"))
    assert time.perf_counter() - start < 5


def test_registered_files_are_the_published_ones():
    assert {
        (info.filename, info.size, info.checksum[:8])
        for info in mnist_builder.MnistDigits.url_infos.values()
    } == {
        ("train-images-idx3-ubyte.gz", 9912422, "440fcabf"),
        ("t10k-images-idx3-ubyte.gz", 1648877, "8d422c7b"),
    }
