"""The part of ``clsim select`` that asks a person: takes the answers, asks the next question, says what to do."""

from __future__ import annotations

import difflib
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsim.cli.arguments import check_place
from clsim.cli.console import err, out
from clsim.cli.watched import watched
from clsim.errors import InputError
from clsim.reporting.screen import Screen

if TYPE_CHECKING:
    from clsim.execution.annotation import Labelling

LISTED = 20
"""Most classes that are listed one by one."""


class Annotator:
    """One call of the command. Final.

    Args:
        labelled: the CSV files of labels; answers are added to the first.
        question: the CSV file of the question, in which the answers come back; ``-`` prints it.
        force: whether to remember the files as they are now, and overwrite the sheet.
    """

    def __init__(self, labelled: Sequence[Path], question: Path, force: bool) -> None:
        self._question, self._force = question, force
        self._printed = str(question) == "-"
        self._console: Screen = err if self._printed else out
        same = [file for file in labelled if not self._printed and file.absolute() == question.absolute()]
        if same and same[0] == labelled[0]:
            raise InputError(f"--out: found {str(question)!r}, the file with the labels; allowed: another file")
        self._labelled = [file for file in labelled if file not in same]  # its answers are taken anyway
        if not self._printed:
            check_place("--out", question, force=True)

    def ask(self, budget: int, **arguments: Any) -> None:
        """Take the answers, choose, and write the question.

        Args:
            budget: number of files to ask for.
            arguments: further arguments of :class:`clsim.execution.annotation.Labelling`.
        """
        from clsim.execution.annotation import Labelling
        from clsim.pool.pool import Cost

        cost = Cost()
        with watched(cost, err):
            loop = Labelling(self._labelled, restart=self._force, cost=cost, **arguments)
            self._refuse_to_overwrite(loop)
            classes, earlier, taken = {*loop.labels.values()}, loop.questions, None
            if not self._printed and self._question.exists():
                taken = loop.take(self._question)
            asked = loop.ask(budget)
        if taken is not None:
            self._say(f"taken from {self._question}: {_counted(taken[0], 'label')}, {_counted(taken[1], 'skip')}")
        self._say_labels(loop, classes if earlier else None)
        if asked.agreement is not None:
            self._say(f"predictions for all files agree with those of the round before: kappa {asked.agreement:.3f}")
        if loop.settled:
            self._say("further labels change little: the mean of the last three kappas is .99 or more")
        self._write(loop)
        stands = ", as before" if asked in earlier else ""
        self._say(f"question {asked.number}{stands}: {_counted(len(asked.files), 'file')}, chosen by {asked.by}")
        if not asked.files:
            self._say("nothing is left to ask: every file has a label or is skipped")
        elif not self._printed:
            self._say(f"next: fill in the column label of {self._question}, and run the same command again")

    @property
    def _sheet(self) -> Path:
        return self._question.with_suffix(".html")

    def _refuse_to_overwrite(self, loop: Labelling) -> None:
        """Refuse files that the loop has not written, since it has not asked so far."""
        if loop.questions or self._force or self._printed:
            return
        check_place("--out", self._question, force=False)
        check_place("--out", self._sheet, force=False)

    def _say_labels(self, loop: Labelling, earlier: set[str] | None) -> None:
        """Say what is labelled, and which classes the answers have brought, which may be slips of the pen."""
        counts = Counter(loop.labels.values())
        listed = ": " + " · ".join(f"{name} {counts[name]}" for name in sorted(counts)) if len(counts) <= LISTED else ""
        words = [
            f"{_counted(sum(counts.values()), 'label')} of {_counted(len(counts), 'class')}{listed if counts else ''}"
        ]
        self._say("; ".join([*words, f"{len(loop.skipped):,} skipped", f"{len(loop.files):,} files in all"]))
        for name in sorted(counts.keys() - earlier) if earlier else ():
            close = difflib.get_close_matches(name, sorted(earlier or ()), n=1)
            self._say(f"new class {name!r}{f'; is it {close[0]!r}?' if close else ''}")
        if len(counts) < 2:
            self._say("nothing can be trained before two classes have labels: this choice is made without")

    def _write(self, loop: Labelling) -> None:
        from clsim.records.answers import question
        from clsim.records.atomic import write

        asked = loop.questions[-1]
        content = question(asked.files)
        if self._printed:
            for name in asked.files:  # which come back as they are, so that they cannot be written in another way
                if any((unicodedata.category(c) == "Cc" and c not in "\n\t") or _turns(c) for c in name):
                    allowed = "a file: a terminal would obey what is in the name"
                    raise InputError(f"--out: found '-' with a question on {name!r:.80}, allowed: {allowed}")
            sys.stdout.write(content.decode("utf-8-sig"))
            return
        places = {name: loop.place(name) for name in asked.files}
        if any(places.values()):
            from clsim.reporting.contact import draw

            about = f"Write the labels into {self._question.name}, whose first row below the heading is number 1. "
            about += "Beside other labels, an empty one skips the picture for good."
            title = f"{_counted(len(places), 'picture')} to label: question {asked.number}"
            draw(places, title, about, self._sheet)
            self._say(f"written: {self._question}, {self._sheet}")
        else:
            self._say(f"written: {self._question}")
        write(self._question, content)

    def _say(self, line: str) -> None:
        self._console.say(line)


def _turns(character: str) -> bool:
    """Whether a character turns the direction of writing."""
    return unicodedata.bidirectional(character) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def _counted(number: int, noun: str) -> str:
    """
    >>> _counted(1, "skip"), _counted(2000, "class")
    ('1 skip', '2,000 classes')
    """
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"
