"""Where in the user's own code something stands, and what a task's behaviour is made of.  Changes nothing."""

from __future__ import annotations

import ast
import builtins
import hashlib
import inspect
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType, TracebackType
from typing import Any

OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Of a global that a task names: beyond, it is data, and data is an input.
MOST_ITEMS = 1000
DEEPEST = 10
LIBRARY_FOLDERS = ("site-packages", "dist-packages")


def here() -> dict[str, Any]:
    """Return file and line of the call in the user's code that led here."""
    frame = sys._getframe(1)
    while frame.f_back is not None and is_ours(frame.f_code.co_filename):
        frame = frame.f_back
    return {"file": os.path.basename(frame.f_code.co_filename), "line": frame.f_lineno}


def is_ours(file: str) -> bool:
    """Whether a file is one of this package, and not the user's."""
    return file.startswith(OWN + os.sep)


def users_own(traceback: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that begins with the user's code; the whole if none of it is."""
    found = traceback
    while found is not None and is_ours(found.tb_frame.f_code.co_filename):
        found = found.tb_next
    return found or traceback


def code_digest(function: Callable[..., Any]) -> str:
    """Return the digest of what a function does: its code, and that of the user's functions and values it names.

    Comments, blank lines and documentation are no part of it; libraries are not followed.
    """
    found = hashlib.sha256()
    for name, text in sorted(_parts(function, {}).items()):
        found.update(f"{name}\0{text}\0".encode("utf-8", "surrogatepass"))
    return f"sha256:{found.hexdigest()}"


def _parts(function: Any, seen: dict[str, str]) -> dict[str, str]:
    function = inspect.unwrap(getattr(function, "function", function))
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    if name in seen:
        return seen
    seen[name] = _text(function)
    for other, value in _named(function):
        if _is_users(value):
            _parts(value, seen)
        elif (said := _constant(value)) is not None:
            seen[f"{name}.{other}="] = said
    return seen


def _constant(value: Any, depth: int = 0) -> str | None:
    """Return a plain value as text, the same in every process; None for what is none, or is large."""
    if value is None or isinstance(value, str | int | float | bytes):
        return repr(value)
    if not isinstance(value, list | tuple | dict | set | frozenset) or len(value) > MOST_ITEMS or depth > DEEPEST:
        return None
    items = [item for pair in value.items() for item in pair] if isinstance(value, dict) else list(value)
    parts = [_constant(item, depth + 1) or f"<{type(item).__name__}>" for item in items]
    ordered = sorted(parts) if isinstance(value, set | frozenset) else parts
    return f"{type(value).__name__}({', '.join(ordered)})"


def _text(function: Any) -> str:
    """Return the code without what does nothing; that of the interpreter if there is no source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        code = getattr(function, "__code__", None)
        return repr((code.co_code, code.co_consts)) if code else repr(function)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
            # What a task asks for is no part of what it does.
            node.decorator_list = []
    return ast.dump(tree)


def _named(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield the globals and closed-over values that a function, or a class's methods, name."""
    if inspect.isclass(function):
        for name, value in sorted(vars(function).items()):
            if isinstance(value, FunctionType):
                yield name, value
        return
    code = getattr(function, "__code__", None)
    if code is None:
        return
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:
            continue
    names = _names(code)
    for name in sorted(names):
        if name in function.__globals__ and not hasattr(builtins, name):
            value = function.__globals__[name]
            yield name, value
            if isinstance(value, ModuleType) and _is_users_file(getattr(value, "__file__", None)):
                for attribute in sorted(names):
                    if hasattr(value, attribute):
                        yield f"{name}.{attribute}", getattr(value, attribute)


def _names(code: CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names(constant)
    return found


def _is_users(value: Any) -> bool:
    value = getattr(value, "function", value)
    if not isinstance(value, FunctionType) and not inspect.isclass(value):
        return False
    return _is_users_file(getattr(sys.modules.get(value.__module__), "__file__", None))


def _is_users_file(file: str | None) -> bool:
    if not file:
        return False
    standard = os.path.dirname(os.__file__)
    return not (is_ours(file) or file.startswith(standard + os.sep) or any(part in file for part in LIBRARY_FOLDERS))
