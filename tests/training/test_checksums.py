import json
import math
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.training import checksums


class Moments(NamedTuple):
    mean: Any
    count: Any


@flax.struct.dataclass
class State:
    step: Any
    params: Any
    moments: Any
    averages: Any = None


def test_named_leaves_of_every_container():
    state = State(1, {"b": {"kernel": 2}, "a": 3}, (Moments(4, {}), [5, None]))
    assert checksums.named_leaves(state) == {
        "step": 1,
        "params/a": 3,
        "params/b/kernel": 2,
        "moments/0/mean": 4,
        "moments/1/0": 5,
    }


def test_checksum_sees_every_bit_shape_dtype_and_name():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    reference = checksums.checksum("a", array)
    assert checksums.checksum("a", array.copy(order="F")) == reference
    flipped = array.copy()
    flipped.view(np.uint8)[1, 5] ^= 1
    others = [
        checksums.checksum("a", flipped),
        checksums.checksum("a", array.reshape(3, 2)),
        checksums.checksum("a", array.view(np.int32)),
        checksums.checksum("b", array),
    ]
    assert reference not in others
    assert len(set(others)) == 4


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.int32, np.bool_, np.float64])
@pytest.mark.parametrize("shape", [(), (0, 2), (3,)])
def test_checksum_takes_any_array(dtype, shape):
    array = np.ones(shape, dtype)
    assert isinstance(checksums.checksum("a", array), int)


def test_describe_agrees_for_array_and_template():
    expected = {"shape": [2, 3], "dtype": "bfloat16"}
    array = jnp.zeros((2, 3), jnp.bfloat16)
    assert checksums.describe(array) == expected
    assert checksums.describe(np.asarray(array)) == expected
    assert checksums.describe(jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)) == expected
    assert checksums.describe(7) == {"shape": [], "dtype": "int64"}


def test_first_difference():
    def leaf(*shape, dtype="float32"):
        return {"shape": list(shape), "dtype": dtype}

    saved = {"a": {**leaf(2), "crc32": 1}, "b": {**leaf(3), "crc32": 2}}
    assert checksums.first_difference(saved, {"a": leaf(2), "b": leaf(3)}) is None
    assert checksums.first_difference(saved, {"a": leaf(2), "b": leaf(3, 1)}) == (
        "b has shape (3,) and dtype float32 there "
        "and shape (3, 1) and dtype float32 in this model"
    )
    assert checksums.first_difference(
        saved, {"a": leaf(2), "b": leaf(3, dtype="bfloat16")}
    ) == (
        "b has shape (3,) and dtype float32 there "
        "and shape (3,) and dtype bfloat16 in this model"
    )
    assert checksums.first_difference(saved, {"a": leaf(2), "c": leaf(4)}) == (
        "c has shape (4,) and dtype float32 in this model and is absent there"
    )
    assert checksums.first_difference(saved, {"a": leaf(2)}) == (
        "b has shape (3,) and dtype float32 there and is absent in this model"
    )
    partly = checksums.first_difference(saved, {"a": leaf(2)}, allow_more_saved=True)
    assert partly is None


def test_seal_round_trip():
    content = {"loss": 0.1 + 0.2, "none": None, "nested": {"ü": [1, math.inf]}}
    sealed = json.loads(json.dumps(checksums.seal(content)))
    assert checksums.unseal(sealed) == content


def test_unseal_notices_changes():
    sealed = checksums.seal({"step": 4})
    sealed["content"]["step"] = 5
    with pytest.raises(ValueError, match="does not match its checksum"):
        checksums.unseal(sealed)
    with pytest.raises(ValueError, match="not one of ours"):
        checksums.unseal({"step": 4})


def test_seal_refuses_what_json_cannot_hold():
    with pytest.raises(TypeError, match="not JSON serializable"):
        checksums.seal({"array": np.zeros(2)})
