"""Paths that users give, and reading what lies there."""

import gzip
import json
import os

import pytest

from convlstm_jax.errors import UserError
from convlstm_jax.paths import (
    local_path,
    parse_json,
    read_bytes,
    read_json,
    seal,
    unseal,
)


def test_the_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(local_path("~/runs")) == "/home/somebody/runs"
    assert str(local_path("a/../~b")) == "a/../~b"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "~nobody-of-this-name/x",
            "'~nobody-of-this-name/x' is not a path here",
        ),
        ("a" * 300, r"^'a{100}…a{80}' is not a path here: it is too long$"),
        ("a/" * 2500, "is not a path here: it is too long"),
        ("a\0b", "is not a path: embedded null byte"),
    ],
)
def test_what_can_be_no_path(path, message):
    with pytest.raises(UserError, match=message):
        local_path(path)


def test_reading_ends_at_the_limit(tmp_path):
    plain, packed = tmp_path / "a", tmp_path / "a.gz"
    plain.write_bytes(bytes(1000))
    packed.write_bytes(gzip.compress(bytes(1000)))
    assert len(packed.read_bytes()) < 100
    for path in (plain, packed):
        assert read_bytes(path, 1000) == bytes(1000)
        with pytest.raises(UserError, match=f"'{path}' has more than 999 bytes"):
            read_bytes(path, 999)
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(EOFError):
        read_bytes(packed)


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero", "."):
        with pytest.raises(UserError, match="it must be a regular file"):
            read_bytes(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "none")


def test_json_however_deep_is_an_error_of_its_content(tmp_path):
    (tmp_path / "a.json").write_text('{"b": [1]}')
    assert read_json(tmp_path / "a.json") == {"b": [1]}
    with pytest.raises(ValueError, match="it is nested too deeply"):
        parse_json("[" * 200_000)
    (tmp_path / "a.json").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        read_json(tmp_path / "a.json")


def test_a_seal_tells_every_change():
    content = {"a": [1, None, "ü"], "b": {"c": 0.1}}
    sealed = seal(content)
    assert unseal(parse_json(json.dumps(sealed))) == content
    text = json.dumps(sealed)
    for old, new in (("[1,", "[2,"), ("null", "true"), ('"c"', '"d"'), ("0.1", "0.2")):
        with pytest.raises(ValueError, match=r"^it does not match its checksum$"):
            unseal(json.loads(text.replace(old, new)))
    for other in (content, [], None, {**sealed, "more": 1}):
        with pytest.raises(ValueError, match=r"^a list has no checksum$"):
            unseal(other, "a list")


@pytest.mark.parametrize("depth", range(900, 1000, 7))
def test_a_seal_around_deep_json(depth):
    deep = '{"crc32": 1, "content": ' + "[" * depth + "]" * depth + "}"
    with pytest.raises(ValueError, match=r"nested too deeply|match its checksum"):
        unseal(parse_json(deep))
