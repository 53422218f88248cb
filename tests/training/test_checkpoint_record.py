import json
import math
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.training import checkpoint_reading as records
from convlstm_jax.training.state import EarlyStopping


class Moments(NamedTuple):
    mean: Any
    count: Any


def test_named_leaves_of_every_container():
    params = {"b": {"kernel": 2}, "a": 3}
    state = {"step": 1, "params": params, "moments": (Moments(4, {}), [5, None])}
    assert records.named_leaves(state) == {
        "step": 1,
        "params/a": 3,
        "params/b/kernel": 2,
        "moments/0/mean": 4,
        "moments/1/0": 5,
    }


def test_checksum_sees_every_bit_shape_dtype_and_name():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    reference = records.checksum("a", array)
    assert records.checksum("a", array.copy(order="F")) == reference
    flipped = array.copy()
    flipped.view(np.uint8)[1, 5] ^= 1
    others = [
        records.checksum("a", flipped),
        records.checksum("a", array.reshape(3, 2)),
        records.checksum("a", array.view(np.int32)),
        records.checksum("b", array),
    ]
    assert reference not in others
    assert len(set(others)) == 4


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.int32, np.bool_])
def test_checksum_and_description_of_any_array(dtype):
    for shape in ((), (3,)):
        array = np.ones(shape, dtype)
        assert isinstance(records.checksum("a", array), int)
        expected = records.LeafRecord(shape=list(shape), dtype=np.dtype(dtype).name)
        for leaf in (array, jnp.asarray(array), jax.ShapeDtypeStruct(shape, dtype)):
            assert records.describe(leaf) == expected


@pytest.mark.parametrize(
    ("wanted", "partly", "message"),
    [
        ({"a": ((2,), "float32"), "b": ((3,), "float32")}, False, None),
        ({"a": ((2,), "float32")}, True, None),
        (
            {"a": ((2,), "float32")},
            False,
            "b has shape (3,) and dtype float32 there and is absent in this model",
        ),
        (
            {"a": ((2, 1), "float32")},
            True,
            "a has shape (2,) and dtype float32 there and shape (2, 1) and dtype "
            "float32 in this model",
        ),
        (
            {"b": ((3,), "bfloat16")},
            True,
            "b has shape (3,) and dtype float32 there and shape (3,) and dtype "
            "bfloat16 in this model",
        ),
        (
            {"c": ((4,), "float32")},
            True,
            "c has shape (4,) and dtype float32 in this model and is absent there",
        ),
    ],
)
def test_first_difference(wanted, partly, message):
    saved = {
        "a": records.LeafRecord(shape=[2], dtype="float32", crc32=1),
        "b": records.LeafRecord(shape=[3], dtype="float32", crc32=2),
    }
    template = {name: jax.ShapeDtypeStruct(*leaf) for name, leaf in wanted.items()}
    assert records.first_difference(saved, template, partly=partly) == message


RECORD = records.Record(
    step=4,
    validation_loss=-math.inf,
    early_stopping=EarlyStopping(best_value=0.1 + 0.2, best_step=2),
    leaves={"ü/a": records.LeafRecord(shape=[2, 3], dtype="float32", crc32=7)},
)


def test_seal_round_trip():
    sealed = json.loads(json.dumps(RECORD.seal()))
    assert records.Record.unseal(sealed) == RECORD


def sealed_again(**changes):
    content = {**RECORD.seal()["content"], **changes}
    content = {name: value for name, value in content.items() if value != "absent"}
    text = json.dumps(content, sort_keys=True)
    return {"crc32": zlib.crc32(text.encode()), "content": content}


@pytest.mark.parametrize(
    ("sealed", "message"),
    [
        ({**RECORD.seal(), "content": {"step": 4}}, "does not match its checksum"),
        ({**RECORD.seal(), "crc32": [1]}, "does not match its checksum"),
        ({"step": 4}, "not one of ours"),
        ([], "not one of ours"),
        (sealed_again(step="4"), "of another version: step has"),
        (sealed_again(validation_loss=[1]), "version: validation_loss has"),
        (sealed_again(early_stopping=[]), "version: early_stopping has"),
        (sealed_again(early_stopping={"best": 1}), "early_stopping.best has"),
        (sealed_again(leaves={"a": {"shape": [2.5], "dtype": 1}}), "leaves.a.shape.0"),
        (sealed_again(leaves="absent"), "version: leaves has"),
        (sealed_again(more=1), "version: more has"),
    ],
)
def test_unseal_notices_changes_and_other_json(sealed, message):
    with pytest.raises(ValueError, match=message):
        records.Record.unseal(sealed)
