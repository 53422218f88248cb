"""An experiment: the sections of a config as validated objects, and as a ConfigDict.

The field `name` of a section chooses its config class.
"""

import copy
import dataclasses
import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pydantic
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from convlstm_jax.config import (
    Config,
    applies,
    field,
    parse,
    refusal,
    unknown_field,
    validated,
)
from convlstm_jax.data.base import DataConfig
from convlstm_jax.data.data_sets import DATA_SETS
from convlstm_jax.errors import UserError, did_you_mean, raise_problems
from convlstm_jax.evaluation.evaluate import EvalConfig, RainEvalConfig
from convlstm_jax.models import MODELS, ModelConfig
from convlstm_jax.models.network import NetworkTrainingConfig
from convlstm_jax.objectives import OBJECTIVES, ObjectiveConfig
from convlstm_jax.training.loop import TrainConfig
from convlstm_jax.training.optimizer import OPTIMIZERS, OptimizerConfig

Values = dict[str, Any]  # A config as nested dictionaries.

_UNIONS: dict[str, Mapping[str, type[Config]]] = {
    "model": MODELS,
    "task": OBJECTIVES,
    "data": DATA_SETS,
    "optimizer": OPTIMIZERS,
}
_EVALUATIONS = {"nowcast": RainEvalConfig}
SECTIONS = (*_UNIONS, "train", "eval")
_HEADER = "things in the config are wrong"


class GeneralConfig(Config):
    """Fields outside the sections."""

    seed: int = field(
        0,
        "Seed of the weights, the data and their order.",
        ge=0,
        le=2**32 - 1,  # NumPy and Grain take seeds of 32 bits.
    )
    preset: str = field("", "Name of the chosen preset.")
    note: str = field("", "A line printed before training.", may_change=True)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The validated sections of a config."""

    general: GeneralConfig
    model: ModelConfig
    task: ObjectiveConfig
    data: DataConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    eval: EvalConfig
    config: ConfigDict  # The same as users see it.

    @property
    def training(self) -> NetworkTrainingConfig | None:
        """How the network is trained: the fields of the task that are the network's."""
        return _network_training(self.model, self.task)


def _network_training(
    model: ModelConfig, task: ObjectiveConfig
) -> NetworkTrainingConfig | None:
    cls = type(model).training_config
    if cls is None:
        return None
    return cls(**{name: getattr(task, name) for name in cls.model_fields})


def make_config(
    *,
    model: ModelConfig,
    task: ObjectiveConfig,
    data: DataConfig,
    optimizer: OptimizerConfig,
    train: TrainConfig,
    eval: EvalConfig | None = None,
    training: NetworkTrainingConfig | None = None,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    preset: str = "",
) -> ConfigDict:
    """Returns the locked config of an experiment file.

    The fields of `training`, such as scheduled sampling, join the task's. `presets` are
    values by dotted path such as `model.features`, by name.

    Raises:
        UserError: there is no such preset, or it sets a field that does not exist.
    """
    values: Values = {
        **GeneralConfig(preset=preset).applicable(),
        "model": model.applicable(),
        "task": task.applicable() | (training.applicable() if training else {}),
        "data": data.applicable(),
        "optimizer": optimizer.applicable(),
        "train": train.applicable(),
        "eval": eval.applicable() if eval else {},
    }
    known: dict[str, Mapping[str, Any]] = {"": {}, **(presets or {})}
    if preset not in known:
        raise UserError(
            f"unknown preset {preset!r}: it must be one of {', '.join(presets or ())}"
            f"{did_you_mean(preset, known)}"
        )
    values, problems = update(values, known[preset], from_text=False)
    problems = [f"the preset {preset!r}: {problem}" for problem in problems]
    raise_problems(problems, _HEADER)
    return _locked(values)


def _locked(values: Values) -> ConfigDict:
    config = ConfigDict(values)
    config.lock()
    return config


@functools.cache
def _joined(cls: type[Config], extra: type[Config] | None) -> type[Config]:
    """A config class with the fields of both."""
    if extra is None:
        return cls
    return pydantic.create_model(
        cls.__name__, __base__=(cls, extra), __doc__=cls.__doc__
    )


def section_classes(values: Values) -> dict[str, type[Config]]:
    """The config class of each section; "" stands for the fields outside of them."""
    classes: dict[str, type[Config]] = {"": GeneralConfig}
    problems = []
    for section, union in _UNIONS.items():
        fields = values.get(section)
        name = fields.get("name") if isinstance(fields, Mapping) else None
        if isinstance(name, str) and name in union:
            classes[section] = union[name]
        else:
            problems.append(_unknown_name(section, name))
    raise_problems(problems, _HEADER)
    model = MODELS[values["model"]["name"]]
    task = values["task"]["name"]
    classes["task"] = _joined(classes["task"], model.training_config)
    return {**classes, "train": TrainConfig, "eval": _EVALUATIONS.get(task, EvalConfig)}


def _unknown_name(section: str, name: Any) -> str:
    union = _UNIONS[section]
    return (
        f"config.{section}.name is {name!r}: it must be one of "
        f"{', '.join(map(repr, union))}{did_you_mean(str(name), union)}"
    )


def _fields(values: Values, section: str) -> Values:
    return values.setdefault(section, {}) if section else values


def _prefix(section: str) -> str:
    return f"config.{section}." if section else "config."


def complete(
    values: Values, classes: Mapping[str, type[Config]], changed: Collection[str] = ()
) -> None:
    """Adds missing fields to `values` and drops those that no longer exist.

    Fields that the user has `changed` are kept, to be refused.
    """
    for section, cls in classes.items():
        fields = _fields(values, section)
        for name, info in cls.model_fields.items():
            if applies(cls, name, fields):
                fields.setdefault(name, info.default)
            elif f"{section}.{name}".lstrip(".") not in changed:
                fields.pop(name, None)


def update(
    values: Values, changes: Mapping[str, Any], *, from_text: bool
) -> tuple[Values, list[str]]:
    """Sets fields of a config; fields of other classes come and go with the names.

    A new `name` of a section selects another class; a field that both classes have
    keeps its value. `data.path` switches a generated data set to a reader of own data.
    `changes` are values by dotted path, text if they are `from_text`.

    Returns the new values, and the problems of the changes, a sentence each.
    """
    former = section_classes(values)
    values, problems = copy.deepcopy(values), []
    rest = dict(changes)
    for section, union in _UNIONS.items():
        name = rest.pop(f"{section}.name", None)
        if name in union:
            values[section]["name"] = name
        elif name is not None:
            problems.append(_unknown_name(section, name))
    own_data = DATA_SETS[values["data"]["name"]].own_data
    if changes.get("data.path") and own_data:
        # The size of own data does not follow from what would have been generated.
        data = {k: v for k, v in values["data"].items() if not k.endswith("_sequences")}
        values["data"] = data | {"name": own_data}
    classes = section_classes(values)
    for section, cls in classes.items():
        if cls is not former[section]:
            for name in _fields(values, section).keys() - cls.model_fields.keys():
                del values[section][name]
    for path, value in rest.items():
        section, _, name = path.rpartition(".")
        if section not in classes or name in classes:
            problems.append(_unknown_path(path, classes))
            continue
        cls, fields = classes[section], _fields(values, section)
        if name not in cls.model_fields:
            problems.append(unknown_field(cls, name, fields, _prefix(section)))
            continue
        try:
            fields[name] = parse(cls, name, value) if from_text else value
        except ValueError:
            problems.append(refusal(cls, name, value, _prefix(section)))
    complete(values, classes, rest)
    return values, problems


def _unknown_path(path: str, classes: Mapping[str, type[Config]]) -> str:
    known = [
        f"{_prefix(section)}{name}"
        for section, cls in classes.items()
        for name in cls.model_fields
    ]
    hint = did_you_mean(f"config.{path}", known)
    return f"config.{path} is not a field of the config{hint}"


def experiment(
    config: ConfigDict,
    overrides: Mapping[str, str] | None = None,
    *,
    reads_data: bool = True,
) -> Experiment:
    """Validates a config, with some fields set from text by dotted path.

    Unless the experiment `reads_data`, files that fields name may be missing. All
    problems are raised as one error.
    """
    values: Values = config.to_dict()
    problems: list[str] = []
    if overrides:
        values, problems = update(values, overrides, from_text=True)
    sections: dict[str, Any] = {}
    for section, cls in section_classes(values).items():
        fields = values.get(section, {})
        if not section:
            fields = {name: v for name, v in values.items() if name not in SECTIONS}
        instance, found = validated(cls, fields, _prefix(section))
        problems += [problem for problem in found if problem not in problems]
        if instance is not None:
            sections[section] = instance
    problems += _problems_between(sections)
    if reads_data and "data" in sections:
        problems += [f"config.data.{text}" for text in sections["data"].check_machine()]
    if reads_data and "task" in sections:
        problems += [f"config.task.{text}" for text in sections["task"].check_code()]
    raise_problems(problems, _HEADER)
    if reads_data:
        sections["data"] = sections["data"].found()
    general = sections.pop("")
    applicable = {name: section.applicable() for name, section in sections.items()}
    config = _locked({**general.applicable(), **applicable})
    return Experiment(general=general, **sections, config=config)


def _problems_between(sections: Mapping[str, Any]) -> Iterator[str]:
    """Yields problems between sections that are valid by themselves."""
    model, task, data, optimizer, train = (
        sections.get(name) for name in ("model", "task", "data", "optimizer", "train")
    )
    if train and data and train.batch_size > data.num_train_sequences:
        yield (
            f"config.train.batch_size is {train.batch_size}: it must be at most "
            f"config.data.num_train_sequences, which is {data.num_train_sequences}"
        )
    if optimizer and train and optimizer.warmup_steps >= train.num_steps:
        yield (
            f"config.optimizer.warmup_steps is {optimizer.warmup_steps}: it must be "
            f"less than config.train.num_steps, which is {train.num_steps}"
        )
    if model and data and hasattr(model, "patch_size"):
        for side in ("height", "width"):
            size = getattr(data, side)
            if size % model.patch_size:
                yield (
                    f"config.data.{side} is {size}: it must be a multiple of "
                    f"config.model.patch_size, which is {model.patch_size}"
                )
        margin = getattr(data, "margin", 0)
        if 2 * margin % model.patch_size:
            yield (
                f"config.data.margin is {margin}: twice that must be a multiple of "
                f"config.model.patch_size, which is {model.patch_size}"
            )
    if task and model:
        suited = [n for n, cls in OBJECTIVES.items() if cls.network_kind == model.kind]
        if task.name not in suited:
            yield _unsuited("task", task, suited, "model", model)
        else:
            yield from task.check_network(model)
            if training := _network_training(model, task):
                lengths = task.num_input_frames, task.num_output_frames
                for problem in training.length_problems(*lengths):
                    yield f"config.task.{problem}"
    if task and data:
        suited = [n for n, cls in DATA_SETS.items() if cls.kind == task.data_kind]
        if data.name not in suited:
            yield _unsuited("data", data, suited, "task", task)
        if data.max_frames is not None and task.clip_length > data.max_frames:
            yield (
                f"config.task.num_input_frames is {task.num_input_frames}: with "
                f"num_output_frames it must be at most {data.max_frames}, the length "
                "of the sequences in the test file"
            )


def _unsuited(
    section: str, found: Any, suited: list[str], other: str, given: Any
) -> str:
    *others, last = map(repr, suited)
    either = f"{', '.join(others)} or {last}" if others else last
    return (
        f"config.{section}.name is {found.name!r}: it must be {either} with "
        f"config.{other}.name={given.name!r}"
    )


def leaves(config: ConfigDict) -> dict[str, Any]:
    """Every value of a config by its dotted path, without `config.`."""
    flat: dict[str, Any] = flatten_dict(config.to_dict(), sep=".")
    return flat
