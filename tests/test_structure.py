"""Limits that keep the package readable."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "convlstm_jax"
MAX_LINES, MAX_PARAMETERS = 80, 10


def test_no_function_is_long_or_has_many_parameters():
    too_large = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                arguments = node.args
                count = len(arguments.posonlyargs + arguments.args)
                count += len(arguments.kwonlyargs)
                if lines > MAX_LINES or count > MAX_PARAMETERS:
                    too_large.append((path.name, node.name, lines, count))
    assert not too_large


def test_there_is_no_module_for_everything_else():
    assert not [path for path in PACKAGE.rglob("*.py") if "util" in path.stem]


def test_paths_of_users_go_through_one_function():
    texts = {path.name: path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
    assert [name for name, text in texts.items() if "expanduser" in text] == [
        "paths.py"
    ]
