"""Papers behind clsim: reports with a table ``[paper]``, which names the studies to be run and the reports that judge.

A file in ``./reports`` with such a table is a paper as the shipped ones are; nothing else knows of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from clsim.errors import InputError, nearest
from clsim.spec import registry
from clsim.spec.reader import arguments

State = Literal["verified", "reduced", "not yet"]
"""``verified``: a published number is; ``reduced``: results of the small size are recorded; else ``not yet``."""


@dataclass(frozen=True)
class Size:
    """A size in which a paper is reproduced.

    Attributes:
        studies: names of the studies whose runs are made; empty: the paper has no such size.
        reports: names of the reports that show and judge these runs.
        seconds: seconds of a core that a run takes, on average over these runs; 0: not measured.
        measured: where the seconds are from.
    """

    studies: tuple[str, ...] = ()
    reports: tuple[str, ...] = ()
    seconds: float = 0.0
    measured: str = ""


@dataclass(frozen=True)
class Paper:
    """A paper, as the table ``[paper]`` of a report has it.

    Attributes:
        title: its title.
        authors: its authors, in words.
        year: the year of its publication; 0: not known.
        key: its key in a bibliography.
        claims: what it claims, a sentence each, in our words.
        small: the size for two cores, which takes at most a quarter of an hour.
        published: the size of the paper, as far as that is known.
        results: names of the CSVs of ``reports/results`` that hold its runs, or those of a study like its own.
        state: how far the results that are recorded with clsim go.
    """

    title: str = ""
    authors: str = ""
    year: int = 0
    key: str = ""
    claims: tuple[str, ...] = ()
    small: Size = field(default_factory=Size)
    published: Size = field(default_factory=Size)
    results: tuple[str, ...] = ()
    state: State = "not yet"

    @property
    def cited(self) -> str:
        """Authors, year and title in a line."""
        year = f" ({self.year})" if self.year else ""
        return f"{self.authors}{year}: {self.title}" if self.authors else f"{self.title}{year}"

    def size(self, name: str, where: str) -> Size:
        """Return the size of a name.

        Raises:
            InputError: if there is none.
        """
        sizes = {one: size for one, size in self.sizes.items() if size.studies}
        if name not in sizes:
            raise InputError(f"{where}: size: found {name!r}; {nearest(name, sizes)}")
        return sizes[name]

    @property
    def sizes(self) -> dict[str, Size]:
        """Both sizes by their names."""
        return {"small": self.small, "published": self.published}


def made(values: Mapping[str, Any], where: str) -> Paper:
    """Make a paper of arguments that the strict reader has checked.

    Raises:
        InputError: if a size names studies without a report, or a report without studies; or if there is no claim.
    """
    sizes = {name: Size(**values[name]) for name in ("small", "published") if name in values}
    for name, size in sizes.items():
        if bool(size.studies) != bool(size.reports):
            lacking = "reports" if size.studies else "studies"
            raise InputError(f"{where}: [paper.{name}] {lacking}: found none, allowed: one name or more")
    paper = Paper(**{**values, **sizes})
    for key in ("title", "claims"):
        if not vars(paper)[key]:
            raise InputError(f"{where}: [paper] {key}: missing")
    return paper


def find_paper(name: str) -> Paper:
    """Read the paper of a name: that of its report, in ``./reports`` or shipped, or a path.

    Raises:
        InputError: if there is no such paper, with the nearest name; or if its table is wrong.
    """
    if name.endswith(".toml") or "/" in name or "\\" in name:
        path = registry.find_file("reports", name)
        found = _read(path)
        if found is None:
            raise InputError(f"reproduce: {name!r} has no table [paper], allowed: a report with one")
        return found
    papers, problems = every_paper()
    if name in problems:
        raise InputError(problems[name])
    if name not in papers:
        raise InputError(f"reproduce: unknown paper {name!r}; {nearest(name, papers)}")
    return papers[name]


def every_paper() -> tuple[dict[str, Paper], dict[str, str]]:
    """Read all papers by name; also return what is wrong with those that cannot be read."""
    papers, problems = {}, {}
    for name in registry.file_names("reports"):
        try:
            found = _read(registry.find_file("reports", name))
        except InputError as error:
            problems[name] = str(error)
            continue
        if found is not None:
            papers[name] = found
    return papers, problems


def _read(path: Path) -> Paper | None:
    """Read the table ``[paper]`` of a report's file; None if it has none."""
    tables = registry.read_toml(path)
    if "paper" not in tables:
        return None
    return made(arguments(Paper, tables["paper"], str(path), "paper"), str(path))
