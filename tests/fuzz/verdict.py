"""What a command must not do, whatever it is given: judged by how it ended, what it printed and what it left."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.fuzz.case import Case
from tests.fuzz.prepared import STORES

RECORDED = ("record.json", "checkpoint.pt", "losses.npz", "rounds.pt", "search.json", "error.json")
"""Files of a run that nobody can make again; ``spec.json`` is written anew by its command."""

READING = ("report", "runs", "list", "show", "doctor")
"""Commands that import nothing and change nothing, but for what they are told to write."""


WAITING_FOR_NOBODY = ("export", "select")
"""Commands that start no other process and take no lock that another one may hold."""

CACHES = ("data/clsim-cache/", "data/huggingface/")
"""Folders in which what was read is kept."""

OF_A_DATA_SET = re.compile(
    r"/(dataset_dict\.json|([^/]+/)?(dataset_info\.json|state\.json|data-\d{5}-of-\d{5}\.arrow))"
)
"""The files of a data set as Hugging Face's library writes it."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; negative: the signal that ended it.
        late: whether it was stopped as its time was up; it was not stuck if ``code`` is 130.
        idle: whether it was stopped as it had waited all that time.
    """

    words: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float
    late: bool
    idle: bool = False


def digests(root: Path, without: Path | None = None) -> dict[str, str]:
    """Digest every file below a folder; a link by its target."""
    return dict(_digested(root, without))


def _digested(root: Path, without: Path | None) -> Iterator[tuple[str, str]]:
    for place, folders, files in os.walk(root):
        folders[:] = [name for name in folders if Path(place, name) != without]
        for name in (*files, *(name for name in folders if Path(place, name).is_symlink())):
            path = Path(place, name)
            if path.is_symlink():
                yield str(path.relative_to(root)), f"link to {os.readlink(path)}"
            elif path.is_file():
                yield str(path.relative_to(root)), hashlib.sha1(path.read_bytes()).hexdigest()
            else:
                yield str(path.relative_to(root)), "special"


def faults_of(ended: Ended) -> list[str]:
    """Judge the exit code and what was printed."""
    said = ended.err + ended.out
    if "Traceback (most recent call last)" in said:
        return [f"traceback: {where_from(said)}"]
    if ended.code == -signal.SIGKILL and ended.late:
        return [f"hang: clsim {ended.words[0]}"]
    if ended.idle and ended.words[0] in WAITING_FOR_NOBODY and "local" not in ended.words:
        return [f"waits: clsim {ended.words[0]}"]
    if ended.code < 0:
        return [f"killed by signal {-ended.code}"]
    if ended.code == 130 and (ended.late or ended.words[0] == "runs"):  # nobody is there to answer its question
        return []
    allowed = (0, 1, 2) if ended.words[0] in ("study", "reproduce", "runs", "doctor", "check") else (0, 2)
    if ended.code not in allowed:
        return [f"exit code {ended.code}"]
    lines = ended.err.strip().splitlines()
    if ended.code == 2 and not lines:
        return ["no line of error"]
    usage = any(line.startswith("Usage: ") for line in lines)
    if ended.code == 2 and not usage and not any(line.startswith("clsim: ") for line in lines[-1:]):
        return [f"the last line is no line of error: {lines[-1][:80]!r}"]
    return []


def where_from(text: str) -> str:
    """Name the error of a traceback, and the last place in clsim that it came through."""
    last = text[text.rindex("Traceback (most recent call last)") :]
    error = next((line for line in reversed(last.splitlines()) if re.match(r"\w[\w.]*(:|$)", line)), "?")
    places = re.findall(r'File "[^"]*/(clsim/[\w/]+\.py)", line (\d+)', last)
    kind, _, said = error.partition(":")
    return f"{kind} in {':'.join(places[-1]) if places else '?'}: {said.strip()[:80]}"


def lost(before: Mapping[str, str], after: Mapping[str, str], ended: Ended, work: Path) -> list[str]:
    """Name recorded files whose content is gone though nobody asked for that, and files that reading has changed.

    A report draws new figures where it is told to.
    """
    words = ended.words
    told = {word for word in words if word.startswith("out")}
    changed = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    if words[0] in READING and not {"rm", "gc"} & {*words[1:2]}:
        folders = ["" if folder == "." else f"{folder}/" for option, folder in pairwise(words) if option == "--figures"]
        strange = {path for path in changed if not path.startswith(("out", *folders)) and path not in told}
        strange |= {path for path in changed if path in before and not path.startswith("out")}
        html = {path for path in strange if path.endswith(".html") and "/" not in path and path not in before}
        return [f"reading changed: {path}" for path in sorted(strange - html)][:1]
    if {"rm", "gc"} & {*words[1:2]} or "--fresh" in words:
        return []
    kept = {*after.values()}
    gone = [
        path
        for path, digest in before.items()
        if path.startswith(tuple(f"{store}/" for store in ("runs", *STORES)))
        and path.rpartition("/")[2] in RECORDED
        and digest not in kept
    ]
    later = {path for path in gone if path.endswith(".pt") and zipfile.is_zipfile(work / path)}
    gone = [path for path in gone if path not in later]  # a state that is written before its record
    if ended.code in (0, 1, 130):  # it went on: what it had to keep is in the record, or still on its way there
        gone = [path for path in gone if not (_goes_on(work / path) or (ended.code == 130 and path in after))]
    return [f"lost: {re.sub('[0-9a-f]{16}', 'RUN', path)}" for path in sorted(gone)][:1]


def replaced(before: Mapping[str, str], after: Mapping[str, str], ended: Ended) -> list[str]:
    """Name a file that ``clsim export`` or ``clsim select`` made or changed, but for those that it is told to write."""
    words = ended.words
    if words[0] not in ("export", "select"):
        return []
    changed = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    changed = {path for path in changed if not path.startswith(CACHES)}
    given = [value for option, value in pairwise(words) if option == "--out"]
    out = os.path.normpath(given[-1] if given else "ask.csv" if "--labelled" in words else "picks.csv")
    if words[0] == "export":
        there = "--force" in words and {f"{out}/dataset_info.json", f"{out}/dataset_dict.json"} & {*before}
        told = {path for path in changed if path.startswith(f"{out}/") and (there or path not in before)}
        told = {path for path in told if OF_A_DATA_SET.fullmatch(path.removeprefix(out))} if not ended.code else set()
        told |= {path for path in changed if path.startswith(f".{out}.partial/")}  # its own, of one that was killed
    else:
        beside = {out, f"{os.path.splitext(out)[0]}.html"} if not ended.code else set()
        ledgers = {value for option, value in pairwise(words) if option == "--labelled"}
        beside |= ledgers | {f"{os.path.splitext(name)[0]}.state.json" for name in ledgers}
        told = {path for path in changed if path in beside or path.startswith(f"{out}.parts/")}
    return [f"clsim {words[0]} changed: {path}" for path in sorted(changed - told)][:1]


def _goes_on(path: Path) -> bool:
    """Whether the run of a file has a record, as far as it has come."""
    try:
        return len(json.loads((path.parent / "record.json").read_bytes())["cost"]) > 0
    except (OSError, ValueError, KeyError, TypeError):
        return False


def code_run(case: Case, words: Sequence[str], marks: Sequence[str]) -> list[str]:
    """Judge marks: unpickling must leave none; an import only where words or files of the user's name the module."""
    if any("pickle" in mark for mark in marks):
        return ["code run: a pickle"]
    names = ("canary_module", "evil")
    texts = [str(what.get("to")) for what in case.edits if str(what["file"]).endswith(".toml")]
    by_word = any(name in word for word in words for name in names) and words[0] not in ("list", "doctor", "runs")
    reads = ("list", "show", "doctor", "runs")
    by_file = any(name in text for text in texts for name in names) and words[0] not in reads
    return [] if by_word or by_file else ["code run: an import"]


def escapes(ended: Ended, work: Path, written: set[str]) -> list[str]:
    """Name control characters in what was printed and in the texts that were written."""
    texts = {"stdout": ended.out, "stderr": ended.err}
    for name in written - {"out-ask.csv"}:  # a question names files as they are, since the names come back
        if name.startswith("out") and Path(name).suffix in (".md", ".csv", ".tex", ".html", ".txt"):
            texts[Path(name).suffix] = (work / name).read_bytes().decode("utf-8", "backslashreplace")
    found = []
    for where, text in texts.items():
        strange = {c for c in text if not c.isprintable() and c not in "\n\t\ufeff"}
        if where == ".html":
            strange -= {c for c in strange if c not in "\x1b\x07\u202e"}
        if strange:
            found.append(f"control characters in {where}: {sorted(map(ascii, strange))[0]}")
    return found
