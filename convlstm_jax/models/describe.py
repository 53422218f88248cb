"""Parameters and multiply-adds of a model, counted without running it."""

import math
from typing import Any

import jax
from jax.extend import core

from convlstm_jax.types import Array


def parameter_table(params: Any) -> list[tuple[str, tuple[int, ...], int]]:
    """Every parameter as (path, shape, count), in the order of the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape, leaf.size)
        for path, leaf in leaves
    ]


def multiply_adds(function: Any, *arguments: Any) -> int:
    """Multiply-adds of the convolutions and matrix products of one call.

    Counted in the traced program, loops as often as they run. As usual, padding counts
    as data, and a convolution as the direct one even if a CPU uses Winograd's
    algorithm. Arguments are arrays or `jax.ShapeDtypeStruct`s.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name == "conv_general_dilated":
            total += _convolution(equation)
        elif name == "dot_general":
            total += _matrix_product(equation)
        repeats = parameters["length"] if name == "scan" else 1
        if name == "cond":
            # Of `lax.platform_dependent`, whose last branch is the default.
            total += _count(parameters["branches"][-1].jaxpr)
        for value in parameters.values():
            if isinstance(value, core.ClosedJaxpr):
                total += repeats * _count(value.jaxpr)
            elif isinstance(value, core.Jaxpr):
                total += repeats * _count(value)
    return total


def _convolution(equation: Any) -> int:
    kernel: Array = equation.invars[1].aval
    output: Array = equation.outvars[0].aval
    specification = equation.params["dimension_numbers"].rhs_spec
    output_channels = kernel.shape[specification[0]]
    return output.size * kernel.size // output_channels


def _matrix_product(equation: Any) -> int:
    left: Array = equation.invars[0].aval
    output: Array = equation.outvars[0].aval
    (contracted, _), _ = equation.params["dimension_numbers"]
    return output.size * math.prod(left.shape[axis] for axis in contracted)
