"""Rewrite a JAX function as basic operations that the writers of other formats support.

The writers replace functions of JAX and Flax while they trace, or take arrays with few axes only. So the function is
traced beforehand, for a fixed number of clips, and the writers get its primitive operations, some of them simplified.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

Number = Array | np.ndarray
CALLS = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


def plain_operations(function: Callable[..., Any], shapes: Sequence[jax.ShapeDtypeStruct]) -> Callable[..., list]:
    """Return the function for arrays of these shapes, with its inner functions inlined; it returns a flat list.

    No operation of it gathers or selects booleans, and products are of matrices or stacks of matrices. `function` must
    index within bounds only, and its leaky ReLUs must have slopes below 1: neither is checked.
    """
    closed = jax.make_jaxpr(function)(*shapes)
    return lambda *arguments: _evaluate(closed, arguments)


def _evaluate(closed: jex.ClosedJaxpr, arguments: tuple) -> list:
    jaxpr = closed.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *arguments], strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, jex.Literal) else values[variable]

    for equation in jaxpr.eqns:
        outputs = _operation(equation, [read(variable) for variable in equation.invars])
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _operation(equation: jex.JaxprEqn, operands: list) -> list:
    name, params = equation.primitive.name, equation.params
    is_bool = equation.outvars[0].aval.dtype == jnp.bool_
    if name in CALLS and params.get("name") == "leaky_relu":
        x, slope = operands
        return [lax.max(x, x * lax.convert_element_type(slope, x.dtype))]  # valid for slopes below 1
    if name in CALLS:
        return _evaluate(params[CALLS[name]], tuple(operands))
    if name == "select_n" and is_bool:
        condition, no, yes = operands
        return [lax.bitwise_or(lax.bitwise_and(condition, yes), lax.bitwise_and(lax.bitwise_not(condition), no))]
    if name == "dot_general":
        return [_product(*operands, **params)]
    if name == "gather":
        params = params | {"mode": lax.GatherScatterMode.PROMISE_IN_BOUNDS}
        table = lax.convert_element_type(operands[0], jnp.int32) if is_bool else operands[0]
        result = equation.primitive.bind(table, operands[1], **params)
        return [lax.ne(result, jnp.zeros_like(result)) if is_bool else result]
    result = equation.primitive.bind(*operands, **params)
    return list(result) if equation.primitive.multiple_results else [result]


def _product(left: Number, right: Number, *, dimension_numbers: tuple, **how: Any) -> Array:
    """Compute `lax.dot_general` with at most three axes: stack, rows, columns."""
    (over_left, over_right), (stack_left, stack_right) = dimension_numbers
    rows = [axis for axis in range(left.ndim) if axis not in (*over_left, *stack_left)]
    columns = [axis for axis in range(right.ndim) if axis not in (*over_right, *stack_right)]

    def grouped(array: Number, *groups: Sequence[int]) -> Array:
        sizes = [math.prod(array.shape[axis] for axis in group) for group in groups]
        return lax.reshape(lax.transpose(array, [axis for group in groups for axis in group]), sizes)

    shape = [left.shape[axis] for axis in (*stack_left, *rows)] + [right.shape[axis] for axis in columns]
    how = {key: how[key] for key in ("precision", "preferred_element_type")}
    if not stack_left:
        flat = lax.dot_general(
            grouped(left, rows, over_left), grouped(right, over_right, columns), (((1,), (0,)), ((), ())), **how
        )
    else:
        flat = lax.dot_general(
            grouped(left, stack_left, rows, over_left),
            grouped(right, stack_right, over_right, columns),
            (((2,), (1,)), ((0,), (0,))),
            **how,
        )
    return lax.reshape(flat, shape)
