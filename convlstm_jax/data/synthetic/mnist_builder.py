"""MNIST's images by tensorflow-datasets, without TensorFlow.

The stock builder named `mnist` reads its files through TensorFlow; this one needs NumPy
alone. It is a module of its own because the import of tensorflow-datasets takes half a
second, which those who bring their own digits should not wait for.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.util import DownloadError

from convlstm_jax.data.synthetic.digits import read_idx_images

_ADDRESS = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_TRAIN_URL = f"{_ADDRESS}train-images-idx3-ubyte.gz"
_TEST_URL = f"{_ADDRESS}t10k-images-idx3-ubyte.gz"

# One record holds many digits: reading 70 records takes a fraction of a second,
# reading 70,000 several.
_DIGITS_PER_RECORD = 1000

_TIMEOUT_SECONDS = 3.0
_MAX_RETRIES = 2


class MnistDigits(tfds.core.GeneratorBasedBuilder):
    """The images of MNIST, in their published order, without the labels."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012

    # Sizes and SHA-256 as registered by tensorflow-datasets for its `mnist`.
    url_infos = {  # noqa: RUF012
        _TRAIN_URL: UrlInfo(
            size=9912422,
            checksum="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            filename="train-images-idx3-ubyte.gz",
        ),
        _TEST_URL: UrlInfo(
            size=1648877,
            checksum="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            filename="t10k-images-idx3-ubyte.gz",
        ),
    }

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="The images of the MNIST database of handwritten digits.",
            features=tfds.features.FeaturesDict(
                {
                    "digits": tfds.features.Tensor(
                        shape=(None, 28, 28), dtype=np.uint8, encoding="zlib"
                    )
                }
            ),
            homepage="http://yann.lecun.com/exdb/mnist/",
            # The order decides which digits are for validation.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        files = dl_manager.download({"train": _TRAIN_URL, "test": _TEST_URL})
        return {
            split: self._generate_examples(files[split]) for split in ("train", "test")
        }

    def _generate_examples(self, path: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        images = read_idx_images(Path(path))
        for key, start in enumerate(range(0, len(images), _DIGITS_PER_RECORD)):
            yield key, {"digits": images[start : start + _DIGITS_PER_RECORD]}


def read_mnist(cache_dir: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads MNIST's training and test images, downloading them the first time.

    Args:
        cache_dir: where tensorflow-datasets keeps its data; "" for its default,
            ~/tensorflow_datasets.

    Raises:
        OSError: there is no network (told within seconds), no place to write, or the
            files are not the published ones; the message is one clause that says which.
    """
    builder = MnistDigits(data_dir=cache_dir or None, file_format="array_record")
    if not builder.is_prepared():
        retries_before = downloader.MAX_RETRIES
        downloader.MAX_RETRIES = _MAX_RETRIES
        try:
            # Asked first, since tensorflow-datasets sets no time limit.
            requests.head(_TEST_URL, timeout=_TIMEOUT_SECONDS).raise_for_status()
            builder.download_and_prepare()
        except requests.exceptions.RequestException as error:
            raise OSError(
                f"{_TEST_URL} cannot be reached ({type(error).__name__})"
            ) from error
        except (DownloadError, NonMatchingChecksumError) as error:
            raise OSError(
                f"the files at {_ADDRESS} are not the published ones "
                f"({type(error).__name__})"
            ) from error
        finally:
            downloader.MAX_RETRIES = retries_before
    train, test = (
        np.concatenate([record["digits"] for record in builder.as_data_source(split)])
        for split in ("train", "test")
    )
    return train, test
