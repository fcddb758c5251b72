"""The code behind a component that is not shipped: its file, and the local files that it imports, for fingerprints.

Imports are read from the source, and nothing is imported. Local is what is not installed: neighbours of the user's
file, modules of the working directory, packages installed in place. Of an installed package the named module counts,
with the name and the version of its distribution.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, packages_distributions, version
from pathlib import Path

DYNAMIC = {"__import__", "import_module", "exec", "exec_module", "run_path", "run_module"}
"""Functions that run code which the source does not name."""


OTHERS = {"clsim", "__main__", *sys.stdlib_module_names}
"""Names that are never those of a user's neighbours."""


@dataclass(frozen=True)
class Code:
    """The code behind a component.

    Attributes:
        files: module → its file, the component's own file first.
        open_ends: places where code is used that cannot be followed.
        release: name and version of the distribution of an installed component; empty if there is none.
    """

    files: tuple[tuple[str, Path], ...]
    open_ends: tuple[str, ...] = ()
    release: str = ""

    @property
    def notice(self) -> str:
        """The line that is said before it is imported: its module and its file, and the local files that follow."""
        (name, path), *others = self.files
        more = f", and with it {', '.join(str(other) for _, other in others)}" if others else ""
        return f"imports {name} from {path}{more}"

    @property
    def content(self) -> bytes:
        """The bytes that a fingerprint depends on: those of a single file are the file's own."""
        (_, first), *others = self.files
        found = first.read_bytes() + (b"\0" + self.release.encode() if self.release else b"")
        for name, path in sorted(others):
            text = path.read_bytes()
            found += f"\0{name}\0{len(text)}\0".encode() + text
        return found


def of_file(path: Path) -> Code:
    """Follow a user's file, which may import its neighbours."""
    return _followed(path.stem.replace(".", "_"), path, [str(path.resolve().parent)])


def of_module(name: str) -> Code | None:
    """Follow a module that an import finds from the working directory; None: shipped, built in, or not to be found."""
    first = [str(Path.cwd())]
    found = located(name, first)
    if name.partition(".")[0] == "clsim" or found is None or not found.has_location or found.origin is None:
        return None
    path = Path(found.origin)
    if local(path):
        return _followed(name, path, first)
    names = packages_distributions().get(name.partition(".")[0], [])
    return Code(((name, path),), (), " ".join(f"{n} {version(n)}" for n in sorted(set(names))))


def of_entry_point(entry: EntryPoint) -> Code | None:
    """Follow the module of an entry point, which also counts by its distribution's name and version."""
    code = of_module(entry.module)
    if code is None or entry.dist is None:
        return code
    return Code(code.files, code.open_ends, f"{entry.dist.name} {entry.dist.version}")


def local(path: Path) -> bool:
    """Whether a file is the user's own: of no installed package, and not of Python itself."""
    whole = path.resolve()
    installed = any(whole.is_relative_to(root) for root in _ROOTS) or {"site-packages", "dist-packages"} & {
        *whole.parts
    }
    return whole.is_file() and not installed


def located(name: str, first: Sequence[str]) -> ModuleSpec | None:
    """Find a module as an import would, without importing it or the packages that it is in.

    Args:
        name: the module's full name.
        first: folders that come before the ordinary path.
    """
    found, full = None, ""
    for part in name.split("."):
        full = f"{full}.{part}".lstrip(".")
        try:
            if found is None:
                near = PathFinder.find_spec(full, first)
                found = near if near is not None and near.loader is not None else _anywhere(full, None) or near
            else:
                found = _anywhere(full, found.submodule_search_locations or [])
        except (ImportError, AttributeError, ValueError):  # of a finder that some package has installed
            return None
        if found is None:
            return None
    return found


def _anywhere(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    return next((found for finder in sys.meta_path if (found := finder.find_spec(name, path)) is not None), None)


def _followed(name: str, path: Path, first: Sequence[str]) -> Code:
    importlib.invalidate_caches()
    files, open_ends, waiting = {name: path}, [], [name]
    for package in _packages(name):  # they are run when the module is imported
        waiting += _added(files, package, first)
    while waiting:
        current = waiting.pop(0)
        file = files[current]
        if file.suffix != ".py":
            open_ends.append(f"{file.name} (compiled)")
            continue
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):  # importing it says so
            continue
        package = current if file.name == "__init__.py" else current.rpartition(".")[0]
        for node in ast.walk(tree):
            for imported in _imports(node, package):
                waiting += _added(files, imported, first)
            if found := _dynamic(node):
                open_ends.append(f"{file.name}, line {found[0]} ({found[1]})")
    return Code(tuple(files.items()), tuple(dict.fromkeys(open_ends)))


def _added(files: dict[str, Path], name: str, first: Sequence[str]) -> list[str]:
    """Add a module to the files if it is local and new."""
    top = name.partition(".")[0]
    if name in files or top in OTHERS:
        return []
    found = located(name, first)
    if found is None or not found.has_location or found.origin is None:
        return []
    path = Path(found.origin)
    if not local(path) or any(path.samefile(known) for known in files.values()):
        return []
    files[name] = path
    return [name]


def _imports(node: ast.AST, package: str) -> Iterator[str]:
    """Yield the full names that an import statement may import, packages before their modules."""
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if package else []
            base = ".".join([*above, *filter(None, [base])])
        names = [f"{base}.{alias.name}".lstrip(".") for alias in node.names if alias.name != "*"] + [base]
    for name in filter(None, names):
        yield from [*_packages(name), name]


def _packages(name: str) -> list[str]:
    """
    >>> _packages("a.b.c")
    ['a', 'a.b']
    """
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _dynamic(node: ast.AST) -> tuple[int, str] | None:
    """Return line and name of a call that runs code which the source does not name, or of a change of the path."""
    if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path":
        return node.lineno, "sys.path"
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        return (node.lineno, name) if name in DYNAMIC else None
    return None


_ROOTS = [
    Path(root).resolve()
    for root in (
        *(sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
    )
]


def fingerprint(codes: Sequence[Code]) -> str:
    """Hash the code of components; empty if there is none.

    >>> fingerprint([])
    ''
    """
    found = hashlib.sha256()
    for code in codes:
        found.update(code.content)
    return found.hexdigest()[:16] if codes else ""


def refuse_stale(name: str) -> None:
    """Refuse a module whose code has changed since this process imported it, and which would run as it was.

    Raises:
        ImportError: naming the module.
    """
    code, spec = of_module(name), sys.modules[name].__spec__
    if code is None:
        return
    now = fingerprint([code])
    known = _SEEN.get(name)
    if known is None or known[0] is not spec:
        _SEEN[name] = (spec, now)
    elif known[1] != now:
        raise ImportError(
            f"{name} or a file that it imports has changed since it was imported here; start Python again"
        )


_SEEN: dict[str, tuple[ModuleSpec | None, str]] = {}
"""Module → its spec and its fingerprint when it was imported."""
