"""The flags of the command line, and their parser.

The syntax is that of absl (`--flag=value` or `--flag value`, one dash or two; the last
of several wins), but all errors are reported at once.
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convlstm_jax.errors import UserError, did_you_mean, raise_problems
from convlstm_jax.paths import local_path

# The flags that each mode needs, and those that it may be given besides.
_FLAGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "train": ((), ("config", "workdir", "init_from")),
    "evaluate": (("workdir",), ("config", "input", "every")),
    "predict": (
        ("workdir", "input", "output"),
        ("config", "num_frames", "with_input", "scale", "watch"),
    ),
    "describe": ((), ("config", "workdir")),
    "inspect": (("config",), ("input", "output")),
    "prepare": (("config", "output"), ()),
    "import": (("from", "checkpoint", "config", "workdir"), ()),
    "export": (("workdir", "output"), ("config", "num_frames")),
    "compare": ((), ()),
}
MODES = tuple(_FLAGS)
IMPORTS_FROM = ("keras", "openstl", "pytorch")

_KNOWN_FLAGS = ("mode", *dict.fromkeys(sum((a + b for a, b in _FLAGS.values()), ())))
_HELP_FLAGS = ("-h", "-help", "--help", "--helpshort", "--helpfull")
_FIELD_PREFIX = "config."
_SWITCHES = ("with_input", "watch")  # Flags that may stand without a value.
# Flags that take an integer from 1 on, and their largest values.
_INTEGERS = {"num_frames": 100_000, "scale": 32, "every": 100_000}

HELP = """\
Predict the next frames of a video with convolutional recurrent networks.

usage: python main.py --config=FILE[:PRESET] [--mode=MODE] [--workdir=DIR]
                      [--config.SECTION.FIELD=VALUE ...]

  python main.py --config=configs/moving_mnist.py
      trains, evaluates and draws into a fresh folder under runs/; without an
      accelerator a small preset that suits a laptop is used
  python main.py --config=configs/moving_mnist.py:5x5-128-64-64 --workdir=runs/paper
      trains the model of the paper; run the same line again to resume
  python main.py --config=configs/moving_mnist.py:quick --config.train.num_steps=200
      changes one field of the config
  python main.py --mode=predict --workdir=runs/paper --input=clip.gif --output=next.gif
      predicts the frames that follow a clip

modes:
  train     trains, evaluates and draws; resumes in the folder of a run. The default.
  evaluate  evaluates a trained model.
  predict   predicts the frames that follow a clip, or classifies the clips of a film.
  describe  prints the model layer by layer with its parameters.
  inspect   shows how the films of a folder are read, before any training.
  prepare   decodes a folder of films, annotated films or radar composites once;
            --config.data.path=OUTPUT then reads it.
  import    makes a run from weights that another program trained.
  export    writes the trained model as one file, which runs without this program.
  compare   prints a table of runs, as in --mode=compare runs/*.

flags:
  --config=FILE[:PRESET]  the experiment: a Python file with a function get_config, or
                          the name of one under configs/, such as bubbles.
  --mode=MODE             one of the modes above.
  --workdir=DIR           where a run keeps its config, checkpoints and results.
                          train: a new folder, or one to resume in; by default a fresh
                          folder under runs/. import: a new folder.
  --input=PATH            predict: a film, array or folder. inspect: one file to read.
                          evaluate: a folder of radar composites, all of it, instead of
                          the test set; written to evaluation_FOLDER.json.
  --output=PATH           predict: where to write the predicted frames. export: a .jax
                          file. prepare: a folder for the decoded frames, or one to
                          resume. inspect: the .npy file for --input, or the .png.
  --init_from=RUN         train: begins with the weights of another run, or of a folder
                          that Predictor.save_pretrained wrote.
  --num_frames=N          predict, export: how many frames; by default as many as in
                          training.
  --with_input            predict: writes the given frames before the predicted ones.
  --scale=N               predict: enlarges GIF and MP4, N pixels for each pixel.
  --every=N               evaluate: of the start times in --input every n-th.
  --watch                 predict: a file for each new composite of a folder, with its
                          time in the name, until Ctrl-C.
  --from=SOURCE           import: keras (its next-frame examples), openstl (ConvLSTM)
                          or pytorch (the network of configs/bubbles.py).
  --checkpoint=FILE       import: a .keras, .weights.h5 or .h5 file of Keras, or a .pth
                          file of PyTorch.
  --config.SECTION.FIELD=VALUE
                          sets one field, for example --config.model.features=64,64.
  --help                  prints this text, and with --config the fields of the config.

With a --workdir that holds a run, its saved config counts: train, evaluate, predict,
export and describe work without --config, and a --config that differs from it in what
shapes the training is refused. Resuming may change only train.num_steps (not with the
schedules cosine and one_cycle, which span all steps), early stopping, the interval
of the log, trackers, pictures, eval.*, where the data lie and how they are loaded.

Exit codes: 0 done, 2 a mistake on the command line, in the config or in the data (one
sentence on stderr), 1 a bug, 130 interrupted.
"""

_NOTHING_TO_DO = (
    "nothing to do: run `python main.py --config=configs/moving_mnist.py` to train a "
    "model, or `python main.py --help` for everything else"
)


@dataclasses.dataclass(frozen=True)
class Command:
    """The values of the flags, as `HELP` explains them.

    `source` is that of `--from`; `overrides` are fields as text, by dotted path.
    """

    mode: str = "train"
    help: bool = False
    config: str | None = None
    workdir: Path | None = None
    input: Path | None = None
    output: Path | None = None
    num_frames: int | None = None
    with_input: bool = False
    scale: int = 1
    watch: bool = False
    every: int | None = None
    source: str | None = None
    checkpoint: Path | None = None
    init_from: str | None = None
    runs: tuple[Path, ...] = ()
    overrides: dict[str, str] = dataclasses.field(default_factory=dict)


def parse(arguments: Sequence[str]) -> Command:
    """Reads a command line, without the program's name and without loading the config.

    A command line that asks for help may be wrong otherwise.

    Raises:
        UserError: naming everything that is wrong with the flags at once.
    """
    if not arguments:
        raise UserError(_NOTHING_TO_DO)
    values, runs, problems = _split(arguments)
    overrides = {
        name.removeprefix(_FIELD_PREFIX): values.pop(name)
        for name in list(values)
        if name.startswith(_FIELD_PREFIX)
    }
    mode, source = values.pop("mode", "train"), values.get("from")
    if mode == "compare":
        if not runs:
            problems.append("--mode=compare needs the folders of runs, as in runs/*")
    else:
        problems += [f"{a!r} is not a flag: values follow their flag" for a in runs]
    problems += _unknown("mode", mode, MODES) or _misfits(mode, values, bool(problems))
    given: dict[str, Any] = {}
    for name, largest in _INTEGERS.items():
        if text := values.get(name):
            given[name] = int(text) if text.isdecimal() else 0
            if not 1 <= given[name] <= largest:
                allowed = f"an integer from 1 to {largest}"
                problems.append(f"--{name}={text} is wrong: it must be {allowed}")
    for name in _SWITCHES:
        if text := values.get(name):
            given[name] = text == "true"
            if text not in ("true", "false"):
                problems.append(f"--{name}={text} is wrong: it must be true or false")
    paths: dict[str, Any] = {
        name: local_path(values[name])
        for name in ("workdir", "input", "output", "checkpoint")
        if name in values
    }
    inputs = {
        "input": "a file or a folder of frames",
        "checkpoint": "the file with the weights",
    }
    problems += [
        f"--{name}={values[name]} does not exist: it must be {what}"
        for name, what in inputs.items()
        if name in paths and not os.path.exists(paths[name])
    ]
    if source is not None:
        problems += _unknown("from", source, IMPORTS_FROM)
    asks_for_help = any(argument in _HELP_FLAGS for argument in arguments)
    if not asks_for_help:
        raise_problems(problems, "things on the command line are wrong")
    return Command(
        mode=mode,
        help=asks_for_help,
        config=values.get("config"),
        source=source,
        init_from=values.get("init_from"),
        runs=tuple(local_path(run) for run in runs),
        overrides=overrides,
        **given,
        **paths,
    )


def _unknown(flag: str, value: str, known: Sequence[str]) -> list[str]:
    """The problem, if any, with a flag that takes one of some words."""
    if value in known:
        return []
    return [
        f"--{flag}={value} is unknown: it must be one of {', '.join(known)}"
        f"{did_you_mean(value, known)}"
    ]


def _split(
    arguments: Sequence[str],
) -> tuple[dict[str, str], list[str], list[str]]:
    """Splits a command line into flags with values, other words, and the problems."""
    values: dict[str, str] = {}
    words: list[str] = []
    problems: list[str] = []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        if not _is_flag(argument):
            words.append(argument)
            continue
        name, equals, value = argument.lstrip("-").partition("=")
        is_field = name.startswith(_FIELD_PREFIX)
        if not equals and name in _SWITCHES:
            value = "true"
        elif not equals and remaining and not _is_flag(remaining[0]):
            value = remaining.pop(0)
        if name not in _KNOWN_FLAGS and not is_field:
            hint = did_you_mean(name, _KNOWN_FLAGS).replace("mean ", "mean --")
            fields = "; fields of the config are set as --config.SECTION.FIELD=VALUE"
            problems.append(f"unknown flag --{name}{hint or f', see --help{fields}'}")
        elif not value and not (is_field and equals):
            # A field may be set to the empty text; its class refuses it if need be.
            problems.append(f"--{name} needs a value, as in --{name}=...")
        else:
            values[name] = value
    return values, words, problems


def _is_flag(argument: str) -> bool:
    """Tells flags from values; `-5` is a value."""
    return re.match(r"--|-[A-Za-z]", argument) is not None


def _misfits(mode: str, values: dict[str, str], others_are_wrong: bool) -> list[str]:
    """The problems with flags that are not allowed or missing in a mode."""
    needed, optional = _FLAGS[mode]
    problems = []
    for name in [name for name in values if name not in needed + optional]:
        modes = [other for other, (a, b) in _FLAGS.items() if name in a + b]
        problems.append(
            f"--{name} is not allowed with --mode={mode}: it belongs to "
            f"--mode={', '.join(modes)}"
        )
    missing = [f"--{name}" for name in needed if name not in values]
    if missing:
        problems.append(f"--mode={mode} needs {', '.join(missing)}")
    has_config = bool(needed) or not values.keys().isdisjoint({"config", "workdir"})
    # After a misspelt --config this would only repeat the problem.
    if not has_config and not others_are_wrong and mode != "compare":
        problems.append(f"--mode={mode} needs --config, or the --workdir of a run")
    return problems
