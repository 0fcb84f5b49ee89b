"""What a task's behaviour is made of, read from its files: nothing of the user's is imported or run.

A part is a function, a class or a module-level name of the user's code that the task reaches, as text without comments,
blank lines, documentation and decorators.  What of libraries it reaches is named, with its version, by `environment`.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
# Whose decorators say how a task is run, and nothing of what it does.
PLATFORM = ("operators", "airflow")


@dataclass(frozen=True)
class Code:
    """parts: text by `module.name`; libraries: top-level modules of others that it names."""

    parts: Mapping[str, str] = field(default_factory=dict)
    libraries: frozenset[str] = frozenset()


@dataclass
class _Module:
    """Top-level statements of one file, by the names that they bind.  `stars`: modules whose names are all bound."""

    name: str
    is_package: bool
    bound: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)


def code_of(root: Path, task: str) -> Code:
    """Return what the task "module:function" is made of, in the user's code below `root`; nothing if it is not there.

    What is reached by `getattr`, `exec` or a text that names it is not seen.
    """
    return _Reader(root).read(task)


class _Reader:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._modules: dict[str, _Module | None] = {}
        self._parts: dict[str, str] = {}
        self._libraries: set[str] = set()

    def read(self, task: str) -> Code:
        module, _, name = task.partition(":")
        waiting = [(module, name.partition(".")[0])]
        while waiting:
            here, wanted = waiting.pop()
            waiting += self._reach(here, wanted)
        return Code(dict(sorted(self._parts.items())), frozenset(self._libraries))

    def _reach(self, module: str, name: str) -> Iterator[tuple[str, str]]:
        """Take in a name of a module; yield what it names in turn."""
        found = self._module(module)
        if found is None:
            if module:
                self._libraries.add(module.partition(".")[0])
            return
        label = f"{module}.{name}"
        if label in self._parts:
            return
        if name in found.bound:
            text = "\n".join(ast.unparse(_bare(node, found)) for node in found.bound[name])
            self._parts[label] = text
            yield from self._named(found, text)
        elif name in found.imported:
            yield found.imported[name]
        elif self._module(f"{module}.{name}") is not None:
            # A package whose submodule is meant: what of it is used is yielded where it is named.
            return
        else:
            yield from ((star, name) for star in found.stars)

    def _named(self, module: _Module, text: str) -> Iterator[tuple[str, str]]:
        """Yield what a piece of code names outside of itself: of its module, and attributes of imported modules."""
        free = _free(symtable.symtable(text, module.name, "exec"))
        for name in sorted(free):
            if name in module.bound:
                yield module.name, name
            elif name in module.imported:
                yield from self._import(*module.imported[name])
            else:
                yield from ((star, name) for star in module.stars if self._binds(star, name))
        for inner in ast.walk(ast.parse(text)):
            if isinstance(inner, ast.Attribute):
                yield from self._attribute(module.imported, inner)
            elif isinstance(inner, ast.Import | ast.ImportFrom):
                yield from self._inner_import(module, inner, text)

    def _inner_import(
        self, module: _Module, statement: ast.Import | ast.ImportFrom, text: str
    ) -> Iterator[tuple[str, str]]:
        """Yield what an import inside a function makes reachable."""
        inside = dict(_imports(statement, module))
        for origin, name in inside.values():
            yield from self._import(origin, name)
        for inner in ast.walk(ast.parse(text)):
            if isinstance(inner, ast.Attribute):
                yield from self._attribute(inside, inner)

    def _binds(self, module: str, name: str) -> bool:
        found = self._module(module)
        return found is not None and (name in found.bound or name in found.imported)

    def _import(self, module: str, name: str) -> Iterator[tuple[str, str]]:
        if not name or (name and self._module(f"{module}.{name}") is not None):
            whole = f"{module}.{name}" if name else module
            if self._module(whole) is None:
                self._libraries.add(whole.partition(".")[0])
            return
        yield module, name

    def _attribute(self, imported: Mapping[str, tuple[str, str]], node: ast.Attribute) -> Iterator[tuple[str, str]]:
        """Yield `helpers.clean` of `import helpers`, `from pkg import helpers` or `import pkg.helpers`."""
        path, base = [node.attr], node.value
        while isinstance(base, ast.Attribute):
            path.insert(0, base.attr)
            base = base.value
        if not isinstance(base, ast.Name) or base.id not in imported:
            return
        begins, name = imported[base.id]
        here = f"{begins}.{name}" if name else begins
        while path:
            if (known := self._module(here)) is not None and (path[0] in known.bound or path[0] in known.imported):
                yield here, path[0]
                return
            here = f"{here}.{path.pop(0)}"

    def _module(self, name: str) -> _Module | None:
        """Return a module of the user's, None for another's and for none."""
        if name not in self._modules:
            self._modules[name] = self._read(name)
        return self._modules[name]

    def _read(self, name: str) -> _Module | None:
        if not name or not all(part.isidentifier() for part in name.split(".")):
            return None
        path = self._root.joinpath(*name.split("."))
        for file, is_package in ((path.with_name(f"{path.name}.py"), False), (path / "__init__.py", True)):
            try:
                tree = ast.parse(file.read_bytes())
            except (OSError, SyntaxError, ValueError):
                continue
            found = _Module(name, is_package)
            for statement in tree.body:
                _bind(found, statement, statement)
            return found
        # A folder without __init__.py is a package too.
        return _Module(name, True) if path.is_dir() and any(path.glob("*.py")) else None


def _bind(module: _Module, statement: ast.stmt, whole: ast.stmt) -> None:
    """Note the names that a top-level statement binds.  `whole`: the outermost one, if it stands in an if or a try."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        for name, target in _imports(statement, module):
            if name == "*":
                module.stars.append(target[0])
            else:
                module.imported[name] = target
        return
    if isinstance(statement, Definition):
        module.bound.setdefault(statement.name, []).append(whole)
        return
    inner = [each for part in ("body", "orelse", "finalbody") for each in getattr(statement, part, ())]
    inner += [each for handler in getattr(statement, "handlers", ()) for each in handler.body]
    if inner:
        for each in inner:
            _bind(module, each, whole)
    for name in sorted(_targets(statement)):
        if whole not in module.bound.setdefault(name, []):
            module.bound[name].append(whole)


def _targets(statement: ast.stmt) -> set[str]:
    """Return the names that a statement assigns or changes: `RATE = 1`, `TABLE["a"] = 1`, `NAMES.append(2)`."""
    found: set[str] = set()
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign | ast.Delete):
        targets = list(statement.targets)
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign | ast.For):
        targets = [statement.target]
    elif isinstance(statement, ast.With):
        targets = [item.optional_vars for item in statement.items if item.optional_vars is not None]
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        targets = [statement.value.func] if isinstance(statement.value.func, ast.Attribute) else []
    for target in targets:
        for node in ast.walk(target):
            if isinstance(node, ast.Name):
                found.add(node.id)
    return found


def _imports(statement: ast.Import | ast.ImportFrom, module: _Module) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the names that an import binds, and (module, name) that each stands for; no name for a whole module."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            bound = alias.asname or alias.name.partition(".")[0]
            yield bound, (alias.name if alias.asname else bound, "")
        return
    origin = statement.module or ""
    if statement.level:
        above = module.name.split(".")
        above = above[: len(above) - statement.level + module.is_package]
        origin = ".".join([*above, *([origin] if origin else [])])
    for alias in statement.names:
        yield alias.asname or alias.name, (origin, "" if alias.name == "*" else alias.name)


def _free(table: symtable.SymbolTable) -> set[str]:
    """Return the names that code takes from outside: at its top all that it refers to, deeper what is global there."""
    top = table.get_type() == "module"
    found = {each.get_name() for each in table.get_symbols() if each.is_referenced() and (top or each.is_global())}
    return found.union(*(_free(child) for child in table.get_children()))


def _bare(node: ast.stmt, module: _Module) -> ast.stmt:
    """Return a definition without what does nothing: documentation, and what a task asks the platform for."""
    found: ast.stmt = ast.parse(ast.unparse(node)).body[0]
    for inner in ast.walk(found):
        if isinstance(inner, Definition):
            if ast.get_docstring(inner, clean=False) is not None:
                inner.body = inner.body[1:] or [ast.Pass()]
            inner.decorator_list = [each for each in inner.decorator_list if not _is_platforms(each, module)]
    return found


def _is_platforms(decorator: ast.expr, module: _Module) -> bool:
    """Whether a decorator is `@task.ray(…)` or its like."""
    base: ast.expr = decorator
    while isinstance(base, ast.Call | ast.Attribute):
        base = base.func if isinstance(base, ast.Call) else base.value
    if not isinstance(base, ast.Name) or base.id not in module.imported:
        return False
    return module.imported[base.id][0].partition(".")[0] in PLATFORM
