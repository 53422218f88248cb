from pathlib import Path

import pytest

from convlstm_jax.cli import flags
from convlstm_jax.errors import UserError


@pytest.mark.parametrize(
    "line",
    [
        "--config=f.py:quick --mode=describe --config.model.features=64,32",
        "--config f.py:quick --mode describe --config.model.features 64,32",
        "-config=f.py:quick -mode=describe -config.model.features=64,32",
        "--config=g.py --mode=train --config.model.features=1 --config=f.py:quick "
        "--mode=describe --config.model.features=64,32",
    ],
)
def test_the_syntax_of_absl_is_understood_and_the_last_value_wins(line):
    assert flags.parse(line.split()) == flags.Command(
        mode="describe", config="f.py:quick", overrides={"model.features": "64,32"}
    )


def test_negative_numbers_are_values_and_fields_may_be_empty():
    command = flags.parse(
        ["--config=f.py", "--config.seed", "-5", "--config.data.test_file="]
    )
    assert command.overrides == {"seed": "-5", "data.test_file": ""}


def test_each_mode_takes_its_flags(tmp_path):
    line = f"--mode=predict --workdir=w --input={tmp_path} --output=~/a --num_frames=3"
    assert flags.parse(line.split()) == flags.Command(
        mode="predict",
        workdir=Path("w"),
        input=tmp_path,
        output=Path.home() / "a",
        num_frames=3,
    )
    line = (
        f"--mode=import --from=openstl --checkpoint={tmp_path} --config=f --workdir=w"
    )
    assert flags.parse(line.split()) == flags.Command(
        mode="import",
        config="f",
        workdir=Path("w"),
        source="openstl",
        checkpoint=tmp_path,
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "nothing to do: run `python main.py --config=configs/moving_mnist.py`"),
        ("--confg=f.py", "unknown flag --confg (did you mean --config?)"),
        (
            "--config=f.py --learning_rate=3",
            "unknown flag --learning_rate, see --help; fields of the config are set as "
            "--config.SECTION.FIELD=VALUE",
        ),
        (
            "--config=f.py --mode=trian",
            "--mode=trian is unknown: it must be one of train, evaluate, predict, "
            "describe, inspect, prepare, import, export, "
            "compare (did you mean train?)",
        ),
        ("--config=f.py train", "'train' is not a flag: values follow their flag"),
        ("--config=", "--config needs a value, as in --config=..."),
        ("--config --mode=train", "--config needs a value, as in --config=..."),
        ("--config=f.py --config.seed", "--config.seed needs a value"),
        ("--mode=train", "--mode=train needs --config, or the --workdir of a run"),
        ("--mode=describe", "--mode=describe needs --config, or the --workdir of a"),
        ("--mode=predict", "--mode=predict needs --workdir, --input, --output"),
        (
            "--mode=predict --workdir=w --output=o --input=/no/such/file",
            "--input=/no/such/file does not exist: it must be a file or a folder of",
        ),
        (
            "--config=f.py --num_frames=3",
            "--num_frames is not allowed with --mode=train: it belongs to "
            "--mode=predict, export",
        ),
        (
            "--mode=import --from=kears --checkpoint=/ --config=f.py --workdir=w",
            "--from=kears is unknown: it must be one of keras, openstl, pytorch (did "
            "you mean keras?)",
        ),
        (
            "--mode=import --from=keras --checkpoint=/no/file --config=f.py "
            "--workdir=w",
            "--checkpoint=/no/file does not exist: it must be the file with the weig",
        ),
        *(
            (
                f"--mode=predict --workdir=w --input=/ --output=o --num_frames={text}",
                f"--num_frames={text} is wrong: it must be an integer from 1 to 100000",
            )
            for text in ("0", "-2", "1.5", "many")
        ),
    ],
)
def test_mistakes_are_told_in_one_sentence(line, message):
    with pytest.raises(UserError) as caught:
        flags.parse(line.split())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_several_mistakes_are_told_at_once():
    with pytest.raises(UserError) as caught:
        flags.parse(["--mdoe=train", "extra", "--num_frames=0"])
    header, *problems = str(caught.value).split("\n")
    assert header == "4 things on the command line are wrong:"
    firsts = [problem.strip().split()[0] for problem in problems]
    assert firsts == ["unknown", "'extra'", "--num_frames", "--num_frames=0"]


@pytest.mark.parametrize("flag", ["-h", "--help", "-help", "--helpfull"])
def test_help_is_asked_for(flag):
    assert flags.parse(["--confg=x", flag]).help
    assert not flags.parse(["--config=x"]).help


def test_the_help_names_every_flag_and_mode():
    for name in ("config", "mode", "workdir", "input", "output", "num_frames", "from",
                 "checkpoint", "help"):  # fmt: skip
        assert f"  --{name}" in flags.HELP
    for mode in flags.MODES:
        assert mode in flags.HELP
    assert max(len(line) for line in flags.HELP.splitlines()) <= 88
