"""The flags of the command line, and their parser.

The syntax is that of absl (`--flag=value` or `--flag value`, one dash or two; the last
of several wins). The parser is not absl's or ml_collections', which stop at the first
error: all errors are reported at once.
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

from convlstm_jax.config import raise_problems
from convlstm_jax.nearest import did_you_mean

MODES = (
    "train", "evaluate", "predict", "describe", "inspect", "prepare", "import",
    "export",
)  # fmt: skip

# Where imported weights may come from.
IMPORTS_FROM = ("keras", "openstl", "pytorch")

# Each flag with the modes that take it.
_MODES_OF_FLAG: dict[str, tuple[str, ...]] = {
    "config": MODES,
    "mode": MODES,
    "workdir": tuple(mode for mode in MODES if mode not in ("prepare", "inspect")),
    "input": ("predict", "inspect"),
    "output": ("predict", "export", "prepare", "inspect"),
    "num_frames": ("predict", "export"),
    "from": ("import",),
    "checkpoint": ("import",),
}
_REQUIRED: dict[str, tuple[str, ...]] = {
    "train": (),
    "evaluate": ("workdir",),
    "predict": ("workdir", "input", "output"),
    "describe": (),
    "import": ("from", "checkpoint", "config", "workdir"),
    "export": ("workdir", "output"),
    "prepare": ("config", "output"),
    "inspect": ("config",),
}
_HELP_FLAGS = ("-h", "-help", "--help", "--helpshort", "--helpfull")
_FIELD_PREFIX = "config."
_MAX_NUM_FRAMES = 100_000

HEADER = "things on the command line are wrong"

HELP = """\
Predict the next frames of a video with convolutional recurrent networks.

usage: python main.py --config=FILE[:PRESET] [--mode=MODE] [--workdir=DIR]
                      [--config.SECTION.FIELD=VALUE ...]

  python main.py --config=configs/moving_mnist.py
      trains, evaluates and draws into a fresh folder under runs/; without an
      accelerator a small preset that suits a laptop is used
  python main.py --config=configs/moving_mnist.py --help
      lists the fields of a config: values, units, what is allowed
  python main.py --config=configs/moving_mnist.py:5x5-128-64-64 --workdir=runs/paper
      trains the model of the paper; run the same line again to resume
  python main.py --config=configs/moving_mnist.py:quick --config.train.num_steps=200
      changes one field of the config
  python main.py --mode=evaluate --workdir=runs/paper --config.eval.num_sequences=100
      evaluates a trained model
  python main.py --mode=predict --workdir=runs/paper --input=clip.gif --output=next.gif
      predicts the frames that follow a clip
  python main.py --mode=describe --config=configs/moving_mnist.py:fc-lstm-2048-2048
      prints the model layer by layer with its parameters
  python main.py --mode=inspect --config=configs/bubbles.py --config.data.path=films
      shows how the films of a folder are read, before any training
  python main.py --mode=prepare --config=configs/bubbles.py --config.data.path=films
                 --output=prepared
      decodes a folder of films, annotated films or radar composites once;
      --config.data.path=prepared then reads it
  python main.py --mode=import --from=openstl --checkpoint=checkpoint.pth
                 --config=configs/moving_mnist_recurrent.py:small
                 --config.model.forget_offset=0 --workdir=runs/openstl
      makes a run from weights that another program trained
  python main.py --mode=export --workdir=runs/paper --output=paper.jax
      writes the trained model as one file, which runs without this program

flags:
  --config=FILE[:PRESET]  the experiment: a Python file with a function get_config.
  --mode=MODE             train (the default), evaluate, predict, describe, inspect,
                          prepare, import or export.
  --workdir=DIR           where a run keeps its config, checkpoints and results.
                          train: a new folder, or one to resume in; by default a fresh
                          folder under runs/. evaluate, predict, export: a folder
                          that train wrote. import: a new folder.
  --input=PATH            predict: the film, array or folder to continue. inspect: one
                          file to read.
  --output=PATH           predict: where to write the predicted frames. export: the
                          .jax file to write. prepare: the folder for the decoded
                          frames; the same command resumes an unfinished one. inspect:
                          the .npy file for the frames of --input, or the contact sheet.
  --num_frames=N          predict, export: how many frames; by default as many as in
                          training.
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
schedules cosine and one_cycle, which span all steps), early stopping, how often is
logged, pictures, eval.*, where the data files lie and how they are loaded.

Exit codes: 0 done, 2 a mistake on the command line, in the config or in the data (one
sentence on stderr), 1 a bug, 130 interrupted.
"""

NOTHING_TO_DO = (
    "nothing to do: run `python main.py --config=configs/moving_mnist.py` to train a "
    "model, or `python main.py --help` for everything else"
)


@dataclasses.dataclass(frozen=True)
class Command:
    """A parsed and valid command line.

    Attributes:
        mode: one of `MODES`.
        config: `FILE[:PRESET]`, or None.
        workdir: the folder of the run, or None.
        input: predict: the file or folder with the given frames, else None.
        output: predict: where the predicted frames go; export: the file to write;
            prepare: the folder for the decoded frames; else None.
        num_frames: predict, export: how many frames to predict, or None.
        source: import: one of `IMPORTS_FROM`, else None.
        checkpoint: import: the file with the weights, else None.
        overrides: values for fields of the config, as text, by dotted path.
    """

    mode: str = "train"
    config: str | None = None
    workdir: Path | None = None
    input: Path | None = None
    output: Path | None = None
    num_frames: int | None = None
    source: str | None = None
    checkpoint: Path | None = None
    overrides: dict[str, str] = dataclasses.field(default_factory=dict)


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether the command line asks for help."""
    return any(argument in _HELP_FLAGS for argument in arguments)


def parse(arguments: Sequence[str]) -> Command:
    """Reads a command line, without loading the config.

    Args:
        arguments: The command line without the program's name.

    Raises:
        UserError: naming everything that is wrong with the flags at once.
    """
    command, problems = read(arguments)
    raise_problems(problems, HEADER)
    return command


def read(arguments: Sequence[str]) -> tuple[Command, list[str]]:
    """As `parse`, but returns the problems, a sentence each."""
    if not arguments:
        return Command(), [NOTHING_TO_DO]
    values, problems = _split(arguments)
    overrides = {
        name.removeprefix(_FIELD_PREFIX): values.pop(name)
        for name in list(values)
        if name.startswith(_FIELD_PREFIX)
    }
    mode = values.get("mode", "train")
    if mode in MODES:
        problems += _mode_problems(mode, values, bool(problems))
    else:
        problems.append(
            f"--mode={mode} is unknown: it must be one of {', '.join(MODES)}"
            f"{did_you_mean(mode, MODES)}"
        )
    num_frames = None
    if "num_frames" in values:
        text = values["num_frames"]
        if re.fullmatch(r"[0-9_]+", text) and 1 <= int(text) <= _MAX_NUM_FRAMES:
            num_frames = int(text)
        else:
            problems.append(
                f"--num_frames={text} is wrong: it must be an integer from 1 to "
                f"{_MAX_NUM_FRAMES}"
            )
    paths = {
        name: Path(values[name]).expanduser()
        for name in ("workdir", "input", "output", "checkpoint")
        if name in values
    }
    for name in ("workdir", "output"):
        if not _is_text(values.get(name, "")):
            problems.append(f"--{name} is {values[name]!r}: it must be valid UTF-8")
    if "input" in paths and not os.path.exists(paths["input"]):
        problems.append(
            f"--input={values['input']} does not exist: it must be a file or a folder "
            "of frames"
        )
    source = values.get("from")
    if source is not None and source not in IMPORTS_FROM:
        problems.append(
            f"--from={source} is unknown: it must be one of {', '.join(IMPORTS_FROM)}"
            f"{did_you_mean(source, IMPORTS_FROM)}"
        )
    if "checkpoint" in paths and not os.path.exists(paths["checkpoint"]):
        problems.append(
            f"--checkpoint={values['checkpoint']} does not exist: it must be the file "
            "with the weights"
        )
    command = Command(
        mode=mode,
        config=values.get("config"),
        num_frames=num_frames,
        source=source,
        overrides=overrides,
        **paths,
    )
    return command, problems


def _is_text(value: str) -> bool:
    """Whether a path is valid Unicode, not bytes passed through by the system."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Splits a command line into flags and values; also returns the problems."""
    values: dict[str, str] = {}
    problems: list[str] = []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        if not _is_flag(argument):
            problems.append(
                f"{argument!r} is not a flag: values follow their flag, as in "
                "--config=configs/moving_mnist.py"
            )
            continue
        name, equals, value = argument.lstrip("-").partition("=")
        if not equals and remaining and not _is_flag(remaining[0]):
            value = remaining.pop(0)
        if name not in _MODES_OF_FLAG and not name.startswith(_FIELD_PREFIX):
            hint = did_you_mean(name, _MODES_OF_FLAG).replace("mean ", "mean --")
            fields = "; fields of the config are set as --config.SECTION.FIELD=VALUE"
            problems.append(f"unknown flag --{name}{hint or f', see --help{fields}'}")
        elif not value and not _may_be_empty(name, equals):
            problems.append(f"--{name} needs a value, as in --{name}=...")
        else:
            values[name] = value
    return values, problems


def _is_flag(argument: str) -> bool:
    """Tells flags from values; `-5` is a value."""
    return re.match(r"--|-[A-Za-z]", argument) is not None


def _may_be_empty(name: str, equals: str) -> bool:
    """Fields may be set to the empty text; their classes refuse it if it is wrong."""
    return bool(equals) and name.startswith(_FIELD_PREFIX)


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _mode_problems(
    mode: str, values: dict[str, str], others_are_wrong: bool
) -> list[str]:
    """Returns the problems with flags that are not allowed or missing in a mode."""
    problems = []
    for name in values:
        modes = _MODES_OF_FLAG[name]
        if mode not in modes:
            problems.append(
                f"--{name} is not allowed with --mode={mode}: it belongs to "
                f"--mode={_listed(modes)}"
            )
    missing = [f"--{name}" for name in _REQUIRED[mode] if name not in values]
    if missing:
        problems.append(f"--mode={mode} needs {_listed(missing)}")
    # After a misspelt --config this would only repeat the problem.
    if (
        mode in ("train", "describe")
        and "config" not in values
        and "workdir" not in values
        and not others_are_wrong
    ):
        problems.append(
            f"--mode={mode} needs --config, as in --config=configs/moving_mnist.py, or "
            "the --workdir of a run"
        )
    return problems
