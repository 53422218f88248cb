"""README and docs: every command is one that the program takes, every link leads on."""

import re
import shlex
from pathlib import Path

import pytest

from convlstm_jax.cli import config_file, flags
from convlstm_jax.cli.experiment import experiment

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands():
    """The command lines of `main.py`, of all pages, each with its page."""
    found = {}
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                _, program, rest = line.strip().partition("python main.py")
                if program and not line.strip().startswith("#"):
                    found[f"{page.name}: {rest.strip()}"] = rest
    return found


COMMANDS = commands()


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_valid(command, tmp_path, monkeypatch):
    arguments = shlex.split(COMMANDS[command].replace("$rate", "1e-2"), comments=True)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "losses.py").write_text("edges = len")
    monkeypatch.chdir(tmp_path)
    # What it reads exists.
    for argument in arguments:
        name, _, path = argument.partition("=")
        if name in ("--input", "--checkpoint"):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).touch()
    parsed = flags.parse(arguments)
    if parsed.config is not None:
        config = config_file.load(parsed.config)
        experiment(config, parsed.overrides, reads_data=False)


def test_there_are_commands_of_every_mode():
    modes = {re.search(r"--mode=(\w+)", line) for line in COMMANDS.values()}
    assert {mode[1] if mode else "train" for mode in modes} == set(flags.MODES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links or page.name in ("api.md", "metrics.md")
    for link in links:
        if link.startswith(("http:", "https:")):
            continue
        file, _, heading = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert heading in {anchor(title) for title in headings}, link


def anchor(title):
    """The anchor of a heading, as GitHub and MkDocs make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_the_readme_is_short():
    words = (ROOT / "README.md").read_text().split()
    assert len(words) <= 900
