"""What the shell offers at the tab key: the names of the registry, found without importing what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

KINDS = (
    *("scenarios", "strategies", "studies", "reports", "datasets"),
    *("selectors", "acquisitions", "bounds", "condensers", "objectives", "learners", "models"),
)
"""Kinds that ``clsim list`` takes."""


def names_of(*kinds: str, several: bool = False) -> Callable[[str], list[str]]:
    """Make the function that typer calls to complete a name.

    Args:
        kinds: kinds of names, as :data:`KINDS` has them.
        several: whether names are separated by commas; the last one is completed then.
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        known = dict.fromkeys(name for kind in kinds for name in _names(kind))
        return [f"{before}{comma}{name}" for name in known if name.startswith(last)]

    return complete


def words_of(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Make the function that completes one of a few words."""
    known = tuple(words)

    def complete(incomplete: str) -> list[str]:
        return [word for word in known if word.startswith(incomplete)]

    return complete


def _names(kind: str) -> list[str]:
    from clsim.spec import registry

    if kind == "datasets":
        from clsim.spec.sources import DATASETS

        return list(DATASETS)
    if kind == "metrics":
        from clsim.records.metrics import ALL

        return list(ALL)
    return registry.file_names(kind) if kind in registry.FILES else registry.component_names(kind)
