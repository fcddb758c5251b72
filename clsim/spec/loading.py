"""The import of a user's code: modules by name, and files, which may import their neighbours.

A file is loaded into a namespace of its own, and so are the neighbours that it imports, at once or later. So
``sys.path`` stays what it was, two folders may each have a ``helpers.py``, and a file is read anew for every component
that is taken from it.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import itertools
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from clsim.compat import with_torchvision
from clsim.spec.followed import OTHERS, refuse_stale

_PREFIX = "clsim_user_"
_NUMBERS = itertools.count()


def load_module(name: str) -> ModuleType:
    """Import a module by name; the working directory counts, as it does for ``python -m``.

    Raises:
        ImportError: if it is not there, or has changed since it was imported.
    """
    here = str(Path.cwd())
    importlib.invalidate_caches()
    sys.path.insert(0, here)
    try:
        module = with_torchvision(lambda: importlib.import_module(name))
    finally:
        sys.path.remove(here)
    refuse_stale(name)
    return module


def load_file(file: str) -> ModuleType:
    """Load a file as a module of a new namespace, which its neighbours belong to.

    A neighbour comes before an installed module of the same name, but not before one of Python's own.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    path = Path(file).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no such file {str(path)!r}")
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    space = ModuleType(f"{_PREFIX}{next(_NUMBERS)}")
    space.__path__ = [str(path.parent)]
    name = f"{space.__name__}.{path.stem.replace('.', '_')}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path)))
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    sys.modules[space.__name__], sys.modules[name] = space, module  # so that functions know where they come from
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


class _Loader(SourceFileLoader):
    """Loads a file whose import statements look among its neighbours first. Final."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source as it is now; a compiled file may be older, and look up to date."""
        return self.source_to_code(self.get_data(self.path), self.path)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module with an import function of its namespace."""
        space = module.__name__.partition(".")[0]
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _importer(space)}
        super().exec_module(module)


class _Finder(MetaPathFinder):
    """Finds the modules of the namespaces, and no others. Final."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a neighbour, or a module of a package among the neighbours."""
        found = PathFinder.find_spec(fullname, path) if fullname.startswith(_PREFIX) and path is not None else None
        if found is not None and isinstance(found.loader, SourceFileLoader):
            found.loader = _Loader(found.loader.name, found.loader.path)
        return found


_FINDER = _Finder()


def _importer(space: str) -> Any:
    """Make the function behind the import statements of a namespace's modules."""

    def imported(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level or not _is_neighbour(space, name.partition(".")[0]):
            return with_torchvision(lambda: builtins.__import__(name, globals, locals, fromlist or (), level))
        found = builtins.__import__(f"{space}.{name}", globals, locals, fromlist or (), 0)
        return found if fromlist else sys.modules[f"{space}.{name.partition('.')[0]}"]

    return imported


def _is_neighbour(space: str, top: str) -> bool:
    """Whether a name without dots is that of a neighbour."""
    if top in OTHERS:
        return False
    found = PathFinder.find_spec(top, list(sys.modules[space].__path__))
    # a folder without code of its own is a package only where nothing else has the name
    return found is not None and (found.loader is not None or importlib.util.find_spec(top) is None)
