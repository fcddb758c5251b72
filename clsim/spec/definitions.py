"""Functions and classes as their files define them: docstring, place and options, read without an import."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from clsim.spec.docstrings import Docstring, parsed
from clsim.spec.followed import located
from clsim.spec.kinds import Range

_PACKAGE = Path(__file__).parent.parent


class Unread(Exception):
    """What the source does not show: it is made when the module runs."""


@dataclass(frozen=True)
class Parameter:
    """A keyword-only parameter, or a field of a group.

    Attributes:
        kind: its annotation; ``Any`` where that is of no type that a spec can hold.
        default: its default; :class:`Source` where the file computes it, None and ``required`` where it has none.
        says: its line in the docstring.
    """

    name: str
    kind: Any
    default: Any
    says: str
    required: bool = False


@dataclass(frozen=True)
class Source:
    """A value as the source writes it."""

    text: str


@dataclass(frozen=True)
class File:
    """A module's file.

    Attributes:
        made: a top-level name → the statement that makes it.
    """

    path: Path
    made: dict[str, ast.stmt]


@dataclass(frozen=True)
class Definition:
    """A function or a class in its file."""

    file: File
    node: ast.FunctionDef | ast.ClassDef

    @property
    def place(self) -> str:
        """``file:line``."""
        return f"{self.file.path}:{self.node.lineno}"

    @property
    def docstring(self) -> Docstring:
        """The parts of its docstring."""
        return parsed(ast.get_docstring(self.node))

    @property
    def parameters(self) -> list[str]:
        """Names of all parameters but ``self``, in order; of a class those of its ``__init__``."""
        arguments = self._function().node.args  # type: ignore[union-attr]
        return [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs) if a.arg != "self"]

    @property
    def groups(self) -> list[str]:
        """What the docstring says of each group of options as a whole, where it says anything."""
        try:
            function = self._function()
        except Unread:
            return []
        arguments, says = function.node.args, self._says() | function.docstring.args  # type: ignore[union-attr]
        pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        grouped = [a.arg for a, default in pairs if default is not None and self._group(function.file, default)]
        return [says[name] for name in grouped if not says.get(name, "see ").startswith("see ")]

    @property
    def options(self) -> list[Parameter]:
        """The keyword-only parameters but ``rng``; a group of options gives its fields.

        Raises:
            Unread: if the class has no ``__init__`` that the source shows.
        """
        function = self._function()
        arguments, found = function.node.args, list[Parameter]()  # type: ignore[union-attr]
        says = self._says() | function.docstring.args
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            group = None if default is None else self._group(function.file, default)
            if group is not None:
                found += group
            elif argument.arg != "rng":
                found.append(_parameter(function.file, argument.arg, argument.annotation, default, says))
        return found

    @property
    def fields(self) -> list[Parameter]:
        """The fields of a dataclass, those of its bases first."""
        found = {one.name: one for base in reversed(self._bases()) for one in base.fields}
        says = self._says()
        for node in self.node.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
                found[name] = _parameter(self.file, name, node.annotation, node.value, says)
        return list(found.values())

    def _function(self) -> Definition:
        """Find the function that is called: the definition itself, or a class' ``__init__``, or that of its bases."""
        if isinstance(self.node, ast.FunctionDef):
            return self
        for node in self.node.body:
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                return Definition(self.file, node)
        for base in self._bases():
            return base._function()
        raise Unread(self.node.name)

    def _bases(self) -> list[Definition]:
        if isinstance(self.node, ast.FunctionDef):
            return []
        names = [base.value if isinstance(base, ast.Subscript) else base for base in self.node.bases]
        found = [_named(self.file, name.id) for name in names if isinstance(name, ast.Name)]
        return [one for one in found if isinstance(one, Definition)]

    def _says(self) -> dict[str, str]:
        """The lines of parameters: its own before those of its bases."""
        found = dict[str, str]()
        for base in reversed(self._bases()):
            found |= base._says()
        return found | self.docstring.args

    @staticmethod
    def _group(file: File, default: ast.expr) -> list[Parameter] | None:
        """Read the fields of a group of options, with the values that a default gives them; None if it is none."""
        if not isinstance(default, ast.Call) or not isinstance(default.func, ast.Name):
            return None
        group = _named(file, default.func.id)
        if not isinstance(group, Definition) or not _is_dataclass(group.node):
            return None
        fields = group.fields
        given = dict(zip((f.name for f in fields), default.args, strict=False))
        given |= {keyword.arg: keyword.value for keyword in default.keywords if keyword.arg}
        return [
            Parameter(f.name, f.kind, _value(file, given[f.name]), f.says) if f.name in given else f for f in fields
        ]


def definition(target: str) -> Definition:
    """Find the definition behind ``module:attr`` or ``file.py:attr``.

    Raises:
        Unread: if the file is not there or is no Python, or makes the name in another way.
    """
    module, _, name = target.rpartition(":")
    file = _file(Path(module)) if module.endswith(".py") else _module(module, [str(Path.cwd())])
    found = None if file is None else _named(file, name)
    if isinstance(found, Definition):
        return found
    raise Unread(target)


def assigned(module: str, name: str) -> tuple[File, ast.expr]:
    """Find the value of a module's constant, with the file in which its names have a meaning.

    Raises:
        Unread: if there is no such constant.
    """
    file = _module(module, [])
    found = None if file is None else _named(file, name)
    if isinstance(found, tuple):
        return found
    raise Unread(f"{module}:{name}")


def _module(name: str, first: Sequence[str]) -> File | None:
    """Find a module's file without an import; None if it has none."""
    if name.partition(".")[0] == "clsim":
        path = _PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
        return _file(path if path.is_file() else path.with_suffix("") / "__init__.py")
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    found = located(name, first)
    return _file(Path(found.origin)) if found is not None and found.has_location and found.origin else None


def _file(path: Path) -> File | None:
    try:
        return _read(path, path.stat().st_mtime_ns) if path.suffix == ".py" else None
    except (OSError, SyntaxError, ValueError):
        return None


@cache
def _read(path: Path, changed: int) -> File:
    made = dict[str, ast.stmt]()
    for node in ast.parse(path.read_bytes()).body:
        for name in _names(node):
            made[name] = node
    return File(path, made)


def _names(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)


def _named(file: File, name: str) -> Definition | tuple[File, ast.expr] | None:
    """Follow a name to its definition, or to its value and the file that holds it."""
    node = file.made.get(name)
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return Definition(file, node)
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        original = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
        other = _module(node.module, [str(file.path.parent), str(Path.cwd())])
        return None if other is None or other == file else _named(other, original)
    if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
        return _named(file, node.value.id) if isinstance(node.value, ast.Name) else (file, node.value)
    return None


def _parameter(
    file: File, name: str, annotation: ast.expr | None, default: ast.expr | None, says: dict[str, str]
) -> Parameter:
    value = None if default is None else _value(file, default)
    return Parameter(name, _kind(file, annotation), value, says.get(name, ""), default is None)


def _is_dataclass(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _value(file: File, node: ast.expr) -> Any:
    """Compute a value of constants, and of names of constants; its source where that does not do."""
    try:
        return _computed(file, node)
    except Unread:
        return Source(ast.unparse(node))


def _computed(file: File, node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.Tuple, ast.List)):
        values = list[Any]()
        for one in node.elts:
            values += _computed(file, one.value) if isinstance(one, ast.Starred) else [_computed(file, one)]
        return tuple(values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_computed(file, node.operand)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return _attribute(file, node.value.id, node.attr)
    if isinstance(node, ast.Call) and ast.unparse(node) == "field(default_factory=dict)":
        return {}
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "tuple" and len(node.args) == 1:
        return tuple(_computed(file, node.args[0]))
    if isinstance(node, ast.Dict) and None not in node.keys:
        return [_computed(file, key) for key in node.keys if key is not None]  # of a table of functions, the names
    found = _named(file, node.id) if isinstance(node, ast.Name) else None
    if isinstance(found, tuple):
        return _computed(*found)
    raise Unread(ast.unparse(node))


def _attribute(file: File, module: str, name: str) -> Any:
    """Compute the constant of a module that the file imports."""
    if (module, name) == ("math", "inf"):
        return math.inf
    node = file.made.get(module)
    if isinstance(node, ast.ImportFrom) and not node.level:
        original = next(alias.name for alias in node.names if (alias.asname or alias.name) == module)
        other = _module(f"{node.module}.{original}", [str(file.path.parent), str(Path.cwd())])
        found = None if other is None else _named(other, name)
        if isinstance(found, tuple):
            return _computed(*found)
    raise Unread(f"{module}.{name}")


def _kind(file: File, node: ast.expr | None) -> Any:
    """Return the type that an annotation names; ``Any`` for every type that a spec cannot hold."""
    if isinstance(node, ast.Constant):
        return _kind(file, ast.parse(node.value, mode="eval").body) if isinstance(node.value, str) else type(node.value)
    if isinstance(node, ast.BinOp):
        return Union[_kind(file, node.left), _kind(file, node.right)]  # noqa: UP007 - both are values here
    if isinstance(node, ast.Name):
        if node.id in _PLAIN:
            return _PLAIN[node.id]
        found = _named(file, node.id)
        return _kind(*found) if isinstance(found, tuple) else Any
    if isinstance(node, ast.Subscript):
        name = ast.unparse(node.value).rpartition(".")[2]
        inner = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Annotated":
            marks = [_range(file, one) for one in inner[1:]]
            return Annotated[(_kind(file, inner[0]), *marks)]
        if name == "Literal":
            return Literal[tuple(_computed(file, one) for one in inner)]
        if name in ("dict", "Mapping"):
            return dict
        if name in ("Sequence", "list", "tuple"):
            return Sequence[_kind(file, inner[0])]  # type: ignore[misc]
        if name in ("Optional", "Union"):
            kinds = [_kind(file, one) for one in inner] + [type(None)] * (name == "Optional")
            return Union[tuple(kinds)]  # noqa: UP007 - a tuple of values
    return Any


def _range(file: File, node: ast.expr) -> Range | None:
    """Return the bounds that an annotation states; None for another mark."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func).rpartition(".")[2] != Range.__name__:
        return None
    try:
        given = {k.arg: _computed(file, k.value) for k in node.keywords if k.arg}
        return Range(*(_computed(file, one) for one in node.args), **given)
    except Unread:
        return None


_PLAIN = {"int": int, "float": float, "bool": bool, "str": str}
