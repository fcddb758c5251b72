"""What an annotator's loop remembers between its questions, in a JSON file beside the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clsim.errors import InputError, first_line
from clsim.records import regular, sealed
from clsim.records.atomic import write

FORMAT = 1


@dataclass(frozen=True)
class Mark:
    """What is remembered of a file.

    Attributes:
        digest: digest of its content.
        size: its bytes; 0 for a row of features.
        changed: when it was last changed, in nanoseconds; 0 for a row of features. A file with the same size and time
            is not read again.
    """

    digest: str
    size: int = 0
    changed: int = 0


@dataclass(frozen=True)
class Question:
    """Files that are to be labelled.

    Attributes:
        number: number of the question, from 1.
        files: names of the files, best first.
        by: who chose them, in words.
        labels: number of labels that were known.
        agreement: Cohen's κ of the predictions for all files before this question and before the one before; None
            where there are not two.
        key: digest of what the choice depends on: the same key makes the same question.
        guesses: name → predicted class, for the last two questions; empty where nothing was trained.
    """

    number: int
    files: tuple[str, ...]
    by: str
    labels: int
    agreement: float | None
    key: str
    guesses: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Inquiry:
    """The state of a loop: what it knows of the files, and what it has asked."""

    files: Mapping[str, Mark] = field(default_factory=dict)
    questions: tuple[Question, ...] = ()


def load(path: Path) -> Inquiry:
    """Read a state; without a file, an empty one.

    Raises:
        InputError: if the file is anything but a state.
    """
    try:
        content = regular.content(path)
    except FileNotFoundError:
        return Inquiry()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)})") from None
    try:
        return _inquiry(sealed.unsealed(content)[0])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:100]
        raise InputError(
            f"{path}: is no state of a labelling ({reason}); allowed: the file as clsim wrote it, "
            "or --force (restart=True) to begin another; the labels are in their CSV file"
        ) from None


def save(path: Path, state: Inquiry) -> None:
    """Write a state, atomically."""
    write(path, sealed.sealed({"format": FORMAT, **asdict(state)}))


def _inquiry(data: Any) -> Inquiry:
    data = _is(data, dict, "the file")
    if _natural(data["format"]) != FORMAT:
        raise ValueError(f"format: found {data['format']}, allowed: {FORMAT}")
    files = {
        name: Mark(_is(mark["digest"], str, "digest"), _natural(mark["size"]), _natural(mark["changed"]))
        for name, mark in _is(data["files"], dict, "files").items()
    }
    questions = tuple(_question(question) for question in _is(data["questions"], list, "questions"))
    return Inquiry(files, questions)


def _question(data: Any) -> Question:
    agreement = data["agreement"]
    if agreement is not None and not -1 <= _is(agreement, float, "agreement") <= 1:
        raise ValueError(f"agreement: found {agreement}, allowed: −1 to 1")
    return Question(
        _natural(data["number"]),
        tuple(_is(name, str, "a file of a question") for name in _is(data["files"], list, "files of a question")),
        _is(data["by"], str, "by"),
        _natural(data["labels"]),
        agreement,
        _is(data["key"], str, "key"),
        {name: _is(label, str, "a guess") for name, label in _is(data["guesses"], dict, "guesses").items()},
    )


def _is(value: Any, kind: type, what: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{what}: found {value!r:.40}, allowed: {kind.__name__}")
    return value


def _natural(value: Any) -> int:
    if _is(value, int, "a number") < 0:
        raise ValueError(f"found {value}, allowed: 0 or more")
    return value
