"""The smallest and the largest legal value of fields, generated from their classes."""

import math
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convlstm_jax.cli import config_file
from convlstm_jax.cli.build import build_objective, initial_shapes
from convlstm_jax.cli.experiment import experiment
from convlstm_jax.config import applies, validated
from convlstm_jax.data.data_sets import DATA_SETS
from convlstm_jax.errors import UserError
from convlstm_jax.evaluation.evaluate import EvalConfig
from convlstm_jax.models import MODELS
from convlstm_jax.objectives import OBJECTIVES
from convlstm_jax.training.loop import TrainConfig
from convlstm_jax.training.optimizer import OPTIMIZERS
from tests.annotated_films import write_annotated_films
from tests.data.test_radar import write_frames
from tests.program import results_of, run

FRAMES = np.zeros((1, 2, 64, 64, 1), np.float32)
# Data that are drawn in memory.
SYNTHETIC = {"moving_mnist", "moving_squares", "bubbles", "theft_videos", "rain_cells"}


def bounds(cls):
    """(field, value, what makes it exist) for each number with a bound."""
    for name, info in cls.model_fields.items():
        rule, kind = cls.rule(name), info.annotation
        needs = {other: values[0] for other, values in rule.when.items()}
        for other in list(needs):
            needs |= {k: v[0] for k, v in cls.rule(other).when.items()}
        entry = typing.get_args(kind)[0] if typing.get_args(kind) else kind
        if entry not in (int, float):
            continue
        tiny = 1 if entry is int else 1e-6
        low, high = max(rule.ge, rule.gt + tiny), min(rule.le, rule.lt - tiny)
        values = [entry(x) for x in (low, high) if math.isfinite(x)]
        if entry is not kind:
            values = [(value,) * max(rule.min_length, 1) for value in values]
        for value in values:
            yield name, value, needs


def cases(classes):
    return [
        pytest.param(cls, field, value, needs, id=f"{key}.{field}={value}")
        for key, cls in classes.items()
        for field, value, needs in bounds(cls)
    ]


def legal(cls, needs, field, value):
    """The config; `None` if the value is refused beside the defaults of others."""
    config, problems = validated(cls, {**needs, field: value})
    assert all("must" in problem for problem in problems)
    assert (config is None) == bool(problems)
    return config


@pytest.mark.parametrize(("cls", "field", "value", "needs"), cases(MODELS))
def test_networks_are_built(cls, field, value, needs):
    """Their outputs have the shapes they should, traced without computing any."""
    if (config := legal(cls, needs, field, value)) is None:
        return
    assert applies(cls, field, vars(config))
    if getattr(config, "patch_size", 1) > 32:
        return  # Of no frame of 64 pixels; the experiment refuses it.
    network = config.build()
    key = jax.random.key(0)
    if config.kind == "classes":
        call = lambda: network.init_with_output(key, jnp.asarray(FRAMES))[0]  # noqa: E731
        assert jax.eval_shape(call).shape == (1, 2)
    elif config.kind == "decoders":
        targets = {"reconstruction": FRAMES, "forecast": FRAMES}
        call = lambda: network.init_with_output(key, jnp.asarray(FRAMES), targets)[0]  # noqa: E731
        assert {x.shape for x in jax.eval_shape(call).values()} == {FRAMES.shape}
    else:

        def call():
            variables = network.init_forecaster(key, FRAMES.shape[2:])
            return network.forecast(variables, jnp.asarray(FRAMES), 3).frames

        assert jax.eval_shape(call).shape == (1, 3, 64, 64, 1)


@pytest.mark.parametrize(("cls", "field", "value", "needs"), cases(OPTIMIZERS))
def test_optimizers_take_a_step(cls, field, value, needs):
    if (config := legal(cls, needs, field, value)) is None:
        return
    optimizer = config.build(10, 5)
    params = {
        "layer": {"recurrent_kernel": jnp.ones((3, 3, 2, 8)), "bias": jnp.ones(8)}
    }
    state = optimizer.init(params)
    gradient = jax.tree.map(lambda x: 0.1 * x, params)
    updates, _ = optimizer.update(gradient, state, params, value=jnp.ones(()))
    for leaf in jax.tree.leaves(optax.apply_updates(params, updates)):
        assert not np.isnan(leaf).any()


@pytest.mark.parametrize(
    ("cls", "field", "value", "needs"),
    cases({name: DATA_SETS[name] for name in sorted(SYNTHETIC)}),
)
def test_synthetic_clips_are_drawn(cls, field, value, needs):
    if (config := legal(cls, needs, field, value)) is None:
        return
    if math.prod(config.frame_shape) > 1e6:
        return  # Gigabytes a clip: legal where there is the memory.
    sources = config.sources(num_frames=2, seed=0)
    clip = sources.train[0]["frames"]
    around = 2 * getattr(config, "margin", 0)
    height, width, channels = config.frame_shape
    assert clip.shape == (2, height + around, width + around, channels)
    assert np.isfinite(clip).all()


QUICK = {
    "reconstruct": "moving_mnist_autoencoder", "classify": "clip_classification",
    "nowcast": "radar_nowcasting", "forecast": "moving_mnist_recurrent",
}  # fmt: skip


@pytest.mark.parametrize(("cls", "field", "value", "needs"), cases(OBJECTIVES))
def test_objectives_give_a_loss(cls, field, value, needs):
    """Traced, without computing any."""
    name = cls.model_fields["name"].default
    config = config_file.load(f"{QUICK.get(name, QUICK['reconstruct'])}:quick")
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    changes = {"task.name": name, f"task.{field}": text}
    changes |= {f"task.{other}": str(wanted) for other, wanted in needs.items()}
    try:
        found = experiment(config, changes, reads_data=False)
    except UserError as error:
        assert "must" in str(error)
        return
    objective = build_objective(found)
    height, width, channels = found.data.frame_shape
    frames = np.zeros((1, found.task.clip_length, height, width, channels), np.float32)
    batch = {
        "frames": frames, "mask": frames, "label": np.zeros(1, np.int32),
        "index": np.zeros(1, np.int32),
    }  # fmt: skip
    variables = initial_shapes(objective, found)
    losses, _ = jax.eval_shape(
        lambda v: objective.loss_fn(v, batch, jax.random.key(0), jnp.zeros((), int)),
        variables,
    )
    assert losses.shape == (1,)


OWN_DATA = {name: DATA_SETS[name] for name in sorted(DATA_SETS.keys() - SYNTHETIC)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Data of one's own, by the name of what reads it."""
    folder = tmp_path_factory.mktemp("data")
    write_annotated_films(folder / "video", height=8, width=24)
    rain = np.random.default_rng(0).integers(64, 180, (60, 12, 10), np.uint8)
    write_frames(folder / "radar", "201609281400", rain)
    paths = {"video": "video", "annotated_video": "video", "radar": "radar"}
    return {name: str(folder / path) for name, path in paths.items()}


@pytest.mark.parametrize(("cls", "field", "value", "needs"), cases(OWN_DATA))
def test_data_of_ones_own_are_read(cls, field, value, needs, folders):
    name = cls.model_fields["name"].default
    small = {"height": 4, "width": 5} if name == "radar" else {"height": 8, "width": 24}
    needs = {"path": folders[name], **small, **needs}
    if (config := legal(cls, needs, field, value)) is None:
        return
    if math.prod(config.frame_shape) > 1e6:
        return  # Gigabytes a clip: legal where there is the memory.
    try:
        clip = config.sources(num_frames=2, seed=0).train[0]["frames"]
    except UserError:
        return  # No clip of this folder is left, and it says so.
    assert clip.shape == (2, *config.frame_shape)


FLAGS = [
    "--config=moving_mnist:quick", "--config.model.features=1",
    "--config.task.num_input_frames=1", "--config.task.num_output_frames=1",
    "--config.data.digits=sklearn", "--config.data.height=32",
    "--config.data.width=32",
]  # fmt: skip


@pytest.mark.parametrize("which", ["smallest", "largest"])
def test_a_training_with_all_limits_of_its_fields(which, tmp_path):
    """Those of training and evaluation; steps and clips in a number that ends."""
    flags = []
    for section, cls in {"train": TrainConfig, "eval": EvalConfig}.items():
        for name in cls.model_fields:
            rule = cls.rule(name)
            largest = int(min(rule.le, 10**12))
            if name in ("num_steps", "batch_size", "num_sequences"):
                largest = 3
            if cls.model_fields[name].annotation is int:
                value = int(rule.ge) if which == "smallest" else largest
                flags.append(f"--config.{section}.{name}={value}")
    assert len(flags) >= 12
    few = [f"--config.data.num_{split}_sequences=3" for split in ("validation", "test")]
    assert run(*FLAGS, *flags, *few, f"--workdir={tmp_path / 'run'}") == 0
    assert results_of(tmp_path / "run")["model"]["mse"] > 0


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (
            "data.num_workers",
            r"num_workers is 1000000000: it must be at most \d+, four",
        ),
        ("data.prefetch_batches", r"prefetch_batches 1000000000: .* GiB of this mach"),
        (
            "train.batch_size",
            r"train.batch_size is 1000000000 and .* this takes [\d,]+",
        ),
        (
            "eval.batch_size",
            r"eval.batch_size is 1000000000 and .* must take less than",
        ),
        ("task.num_output_frames", "with 1000000001 frames of 32×32 pixels in a clip"),
        ("data.height", "frames of 1000000000×32 pixels in a clip this takes"),
    ],
)
def test_what_this_machine_cannot_hold_is_refused(field, message, tmp_path, capsys):
    clips = "--config.data.num_train_sequences=2000000000"
    flags = [f"--config.{field}=1000000000", clips]
    assert run(*FLAGS, *flags, f"--workdir={tmp_path / 'run'}") == 2
    assert re.search(message, capsys.readouterr().err)
