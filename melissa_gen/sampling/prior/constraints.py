"""Constraints between parameters, written as expressions such as `a + b <= 1`.

An expression is parsed into a syntax tree of Python. Only arithmetic, comparisons, `and`, `or`, `not`,
a few functions, numbers and the names of parameters are allowed. The tree is evaluated here on whole
columns. `eval` is never used.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import StudyError, nearest

__all__ = ["FUNCTIONS", "Constraint"]

_LONGEST = 1000

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "min": lambda *values: np.minimum.reduce(np.broadcast_arrays(*values)),
    "max": lambda *values: np.maximum.reduce(np.broadcast_arrays(*values)),
}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.float_power,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}


class Constraint:
    """A condition that points must meet.

    Args:
        text: A comparison, or several comparisons combined by `and`, `or` and `not`.
        names: Names of the parameters.

    Raises:
        StudyError: The text is not an expression, has an unknown name, or has an element that is not
            allowed.

    Example:
        >>> Constraint("a + b <= 1", ["a", "b"])({"a": np.array([0.2]), "b": np.array([0.9])})
        array([False])
    """

    def __init__(self, text: str, names: Sequence[str]) -> None:
        self.text = text
        self._names = list(names)
        if len(text) > _LONGEST:
            raise self._error(f"is {len(text)} characters long; at most {_LONGEST} are allowed")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise self._error("is not an expression such as 'a + b <= 1'") from None
        self._check(self._tree, condition=True)

    def __call__(self, columns: Mapping[str, NDArray[np.float64]]) -> NDArray[np.bool_]:
        """Returns whether the condition holds (n,); False where a value is not a number.

        Args:
            columns: The values (n,) of each parameter by name, in physical units.
        """
        with np.errstate(all="ignore"):
            return np.asarray(self._value(self._tree, columns), dtype=bool)

    def _check(self, node: ast.expr, condition: bool) -> None:
        """Raises an error for illegal elements, and for a number in place of a condition or vice versa."""
        found, inner = self._children(node)
        if found != condition:
            wanted = "a condition, such as a comparison," if condition else "a number"
            raise self._error(f"has '{ast.unparse(node)}' where {wanted} is needed")
        for child in inner:
            self._check(child, condition=isinstance(node, ast.BoolOp) or _is_not(node))

    def _children(self, node: ast.expr) -> tuple[bool, list[ast.expr]]:
        """Returns whether a node is a condition, and its child nodes."""
        match node:
            case ast.BoolOp(values=values):
                return True, values
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return True, [operand]
            case ast.Compare(left=left, ops=ops, comparators=others):
                if all(type(op) in _COMPARE for op in ops):
                    return True, [left, *others]
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                return False, [operand]
            case ast.BinOp(left=left, op=op, right=right):
                if type(op) in _BINARY:
                    return False, [left, right]
            case ast.Constant(value=value):
                if isinstance(value, int | float) and not isinstance(value, bool):
                    return False, []
            case ast.Name(id=name):
                if name not in self._names:
                    known = ", ".join(self._names)
                    raise self._error(
                        f"has the unknown name '{name}'; the parameters are {known}{nearest(name, self._names)}"
                    )
                return False, []
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                if name in FUNCTIONS and args and (len(args) == 1 or name in ("min", "max")):
                    return False, args
        functions = ", ".join(FUNCTIONS)
        raise self._error(
            f"has '{ast.unparse(node)}'; legal are + - * / **, < <= > >=, and or not, {functions}"
        )

    def _value(self, node: ast.expr, columns: Mapping[str, NDArray[np.float64]]) -> Any:
        match node:
            case ast.BoolOp(op=op, values=values):
                join = np.logical_and if isinstance(op, ast.And) else np.logical_or
                return join.reduce([self._value(value, columns) for value in values])
            case ast.Compare(left=left, ops=ops, comparators=others):
                parts = [self._value(part, columns) for part in (left, *others)]
                held = [_COMPARE[type(op)](parts[i], parts[i + 1]) for i, op in enumerate(ops)]
                return np.logical_and.reduce(held)
            case ast.UnaryOp(op=op, operand=operand):
                value = self._value(operand, columns)
                if isinstance(op, ast.Not):
                    return np.logical_not(value)
                return np.negative(value) if isinstance(op, ast.USub) else value
            case ast.BinOp(left=left, op=operator, right=right):
                sides = self._value(left, columns), self._value(right, columns)
                return _BINARY[type(operator)](*sides)
            case ast.Name(id=name):
                return columns[name]
            case ast.Call(func=ast.Name(id=name), args=args):
                return FUNCTIONS[name](*(self._value(part, columns) for part in args))
            case ast.Constant(value=int() | float() as value):
                return np.float64(value)
        # `_check` only accepts the nodes above.
        raise AssertionError(node)

    def _error(self, problem: str) -> StudyError:
        return StudyError(f"constraints: '{self.text[:80]}' {problem}.")


def _is_not(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
