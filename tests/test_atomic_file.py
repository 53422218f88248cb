"""Files that are written whole or not at all, whatever ends the writer."""

import os
import subprocess
import sys

import pytest

from convlstm_jax.atomic_file import atomic_file, replacing
from convlstm_jax.errors import UserError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_at_the_end_alone(tmp_path):
    path = tmp_path / "new" / "a.png"
    with replacing(path) as partial:
        assert partial.parent == path.parent and partial.suffix == ".png"
        partial.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with pytest.raises(KeyError), replacing(path) as partial:
        partial.write_text("two")
        raise KeyError
    assert path.read_text() == "one" and names(path.parent) == ["a.png"]


def test_what_a_killed_process_has_left_is_removed(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from convlstm_jax.atomic_file import replacing\n"
        f"with replacing({str(tmp_path / 'b.txt')!r}) as partial:\n"
        "    partial.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    (left,) = names(tmp_path)
    assert left != "b.txt"
    with (
        replacing(tmp_path / "a.txt") as partial,
        replacing(tmp_path / "c.txt") as other,
    ):
        partial.write_text("a")  # Both are of this process, and stay.
        other.write_text("c")
    assert names(tmp_path) == ["a.txt", "c.txt"]


def test_a_folder_that_is_a_file_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    message = "file/a.txt' cannot be written .*: it must be a file in a folder"
    with (
        pytest.raises(UserError, match=message),
        atomic_file(tmp_path / "file" / "a.txt"),
    ):
        pass
    assert os.listdir(tmp_path) == ["file"]
