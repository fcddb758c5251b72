"""Labels from a person: what to label next, in questions that go on from what is on disk. ``clsim.Labelling``."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from clsim import notebook
from clsim.data import pictures
from clsim.data.cache import Dataset
from clsim.data.datasets import data_root as root_of
from clsim.errors import InputError, at_least
from clsim.execution.chooser import Candidates, Chooser
from clsim.pool.pool import Cost, Selector
from clsim.records import answers, inquiry

AGREEMENT, WINDOW = 0.99, 3
"""Further labels change little once the mean of the last ``WINDOW`` agreements is ``AGREEMENT`` or more."""


class Labelling:
    """A loop with an annotator: it asks which samples to label next, takes the answers, and goes on from disk. Final.

    The labels are in a CSV file with the columns ``file`` and ``label``, which a person may edit: what it says when it
    is read counts. An answer is added at its end; a row with an empty label is a skip, a file that is not asked again
    until it has a label or the row is deleted. Beside it, ``labels.state.json`` remembers the content of the files, the
    questions, and the predictions of the last two rounds. Both are written atomically, so that a process may be killed
    at any time. The next question depends on the labels, the skips, the samples and the arguments alone, so that it is
    the same however often it is asked for.

    Of pictures, a net is trained on the labelled ones. Of features, a logistic regression is fitted, as a net with a
    linear head. Before two classes have labels there is nothing to train: of features, a selector that needs features
    alone chooses all the same, and TypiClust (Hacohen et al., ICML 2022) in the place of all others; of pictures, the
    choice is random.

    Args:
        labels: the CSV file with the labels, which is made when the first answers come; or several, of which answers
            are added to the first.
        path: folder of pictures. A picture in the folder itself has no class; one in a folder in it has that folder's
            name as its label, as in the data set ``image-folder``. Beside ``features``, the place of the pictures that
            have their names, for :meth:`place`.
        features: features in place of pictures, floats (n, d): an array, a ``.npy`` file, or an ``.npz`` file with the
            array ``x`` and, if the samples have names, ``files``. Without names, samples are called 0, 1, 2 …
        selector: a name of ``clsim list selectors`` that needs no candidate's label, ``module:attr``,
            ``./file.py:attr``, or a selector itself.
        options: keyword arguments of the selector.
        model: architecture of the net, a name of ``clsim list models``; by default ``pooled-convnet3``, which trains in
            seconds.
        size: side, in pixels, that pictures are scaled and cropped to.
        epochs: training epochs of the net; None: ten, or as many as make 200 gradient steps.
        seed: seed of everything that is drawn.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: number of torch's threads; None leaves it as it is.
        data_root: folder of the cache of pictures; None: ``$CLSIM_DATA``, else ``~/.cache/clsim``.
        restart: whether to remember the files as they are now, and no earlier question; the labels stay.
        cost: counters to add to, which show the progress.

    Raises:
        InputError: if an argument or a file is wrong, or a file that was remembered has changed or is missing.

    >>> import tempfile
    >>> x = np.array([[0.0], [0.1], [5.0], [5.1]], dtype=np.float32)
    >>> loop = Labelling(tempfile.mkdtemp() + "/labels.csv", features=x, selector="kcenter")
    >>> loop.ask(2).files
    ('1', '3')
    >>> loop.tell({"3": "high", "1": "low"})
    >>> loop.predict(np.array([[4.0]]))
    {'0': 'high'}
    """

    def __init__(
        self,
        labels: str | Path | Sequence[str | Path],
        *,
        path: str | Path = "",
        features: Any = None,
        selector: str | Selector = "badge",
        options: Mapping[str, Any] | None = None,
        model: str = "",
        size: int = 32,
        epochs: int | None = None,
        seed: int = 0,
        device: str = "auto",
        threads: int | None = None,
        data_root: str | Path | None = None,
        restart: bool = False,
        cost: Cost | None = None,
    ) -> None:
        files = [labels] if isinstance(labels, (str, Path)) else list(labels)
        if not files or not str(files[0]):
            raise InputError("labels: found none, allowed: a CSV file with the columns file and label")
        if features is None and not path:
            raise InputError("labelling: found neither pictures nor features, allowed: one of them")
        if features is not None and model:
            raise InputError(f"model: found {model!r} with features, allowed: pictures, for which a net is trained")
        at_least(1, size=size, epochs=1 if epochs is None else epochs)
        self._ledger, *self._further = (Path(file).expanduser() for file in files)
        if not self._ledger.parent.is_dir():
            raise InputError(f"labels: no folder {str(self._ledger.parent)!r}; allowed: a file in a folder")
        self._state_file = self._ledger.with_suffix(".state.json")
        self._chooser = Chooser(
            selector,
            options,
            features=features is not None,
            model=model,
            epochs=epochs,
            seed=seed,
            device=device,
            threads=threads,
            cost=Cost() if cost is None else cost,
        )
        self._arguments = [self._chooser.name, sorted((options or {}).items()), model, size, epochs, seed]
        self._size, self._root = size, root_of(data_root)
        self._features, self._folder = features, Path(path).expanduser() if path else None
        self._state = inquiry.Inquiry() if restart else inquiry.load(self._state_file)
        self._of_folders: dict[str, str] = {}
        self._paths: dict[str, Path] = {}
        if features is not None:
            self._x, self._names = pictures.named_features(features)
            files_now = pictures.row_marks(self._x, self._names)
            where = str(features) if isinstance(features, (str, Path)) else "features"
        else:
            self._paths, self._of_folders = pictures.listed(Path(path).expanduser())
            files_now, where = pictures.marks(self._paths, self._state.files), str(path)
            self._names = list(self._paths)
        self._where = where
        self._refuse_changes(files_now)
        self._state = replace(self._state, files=files_now)
        self._known = dict(zip(self._names, range(len(self._names)), strict=True))
        self._read()

    def __repr__(self) -> str:
        return f"<Labelling {self._ledger}: {self._counted()}>"

    def _repr_html_(self) -> str:
        asked = self._state.questions[-1].files[:10] if self._state.questions else ()
        facts = {"labels": self._ledger, "samples": self._counted(), "selector": self._chooser.name}
        return notebook.facts("Labelling", facts | {"asked last": ", ".join(asked) or None})

    def _counted(self) -> str:
        """Count what is labelled and skipped, for people."""
        try:
            labels, skipped = self._read()
        except InputError as error:
            return str(error)
        return f"{len(labels)} of {len(self._names)} labelled, {len(skipped)} skipped"

    @property
    def labels(self) -> dict[str, str]:
        """Name → label of what is labelled, as the files say now; folders that are classes included."""
        return self._read()[0]

    @property
    def skipped(self) -> set[str]:
        """Names of what is not asked again, although it has no label."""
        return self._read()[1]

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all samples, labelled or not."""
        return tuple(self._names)

    @property
    def questions(self) -> tuple[inquiry.Question, ...]:
        """What was asked so far, the latest question last."""
        return self._state.questions

    @property
    def open(self) -> tuple[str, ...]:
        """What the latest question asked and nobody has answered."""
        labels, skipped = self._read()
        return tuple(f for q in self._state.questions[-1:] for f in q.files if f not in labels and f not in skipped)

    @property
    def settled(self) -> bool:
        """Whether further labels change little: the predictions for all files have been stable over three rounds.

        The mean of the last three agreements is .99 or more; an agreement is Cohen's κ between the predictions of two
        successive rounds, here for all files of the pool.

        Source: Bloodgood & Vijay-Shanker, A Method for Stopping Active Learning Based on Stabilizing Predictions
            (CoNLL 2009).
        """
        last = [q.agreement for q in self._state.questions[-WINDOW:] if q.agreement is not None]
        return len(last) == WINDOW and sum(last) / WINDOW >= AGREEMENT

    def place(self, file: str) -> Path | None:
        """Find the picture of a sample; None if there is none."""
        if self._features is None or self._folder is None:
            return self._paths.get(file)
        found = self._folder / file
        return found if found.is_file() else None

    def ask(self, budget: int) -> inquiry.Question:
        """Choose what to label next: up to ``budget`` of the files without a label that are not skipped.

        A question of which nothing has been answered is asked again as it is, unless the labels or the arguments have
        changed.

        Raises:
            InputError: if the selector asks for what is not there, or a file is wrong.
        """
        at_least(1, budget=budget)
        labels, skipped = self._read()
        key = self._key(labels, skipped, budget)
        before = list(self._state.questions)
        if before and before[-1].key == key:
            return before[-1]
        if before and not any(file in labels or file in skipped for file in before[-1].files):
            before.pop()  # nobody has answered it
        classes = sorted(set(labels.values()))
        free = [row for name, row in self._known.items() if name not in labels and name not in skipped]
        rows, by, found = self._chooser.choose(self._candidates(labels), free, budget)
        files, guesses = (
            tuple(self._names[row] for row in rows),
            dict(zip(self._names, (classes[c] for c in found), strict=False)),
        )
        agreement = _kappa(before[-1].guesses, guesses) if before else None
        number = before[-1].number + 1 if before else 1
        asked = inquiry.Question(number, files, by, len(labels), agreement, key, guesses)
        before[:-1] = [replace(question, guesses={}) for question in before[:-1]]
        self._state = replace(self._state, questions=(*before, asked))
        inquiry.save(self._state_file, self._state)
        return asked

    def tell(self, given: Mapping[str, str | None]) -> None:
        """Take answers: name → label; None or an empty label is a skip. A label never seen before is a new class.

        Raises:
            InputError: for a file that is not there, or one that has another label already; nothing is taken then.
        """
        said = []
        for file, label in given.items():
            text = "" if label is None else label
            answers.check_label(text, f"the answer for {file!r:.60}")
            said.append(answers.Answer(file, text.strip(), "the answers"))
        self._take(said)

    def take(self, file: str | Path) -> tuple[int, int]:
        """Take the answers from a question's CSV file that a person has filled in.

        If no row has a label, nobody has answered yet, and nothing is taken. Otherwise a row with an empty label is a
        skip; a row that was deleted may be asked again.

        Returns:
            Number of new labels and of new skips.

        Raises:
            InputError: if the file is wrong; nothing is taken then.
        """
        rows = answers.read(Path(file))
        if not any(row.label for row in rows):
            for row in rows:
                self._resolved(row)
            return 0, 0
        return self._take(rows)

    def predict(self, given: Any) -> dict[str, str]:
        """Predict the classes of other samples by what is labelled so far: name → class.

        Args:
            given: a folder of pictures; or features, as the loop was given.

        Raises:
            InputError: if fewer than two classes have labels.
        """
        if self._features is None:
            paths, _ = pictures.listed(Path(given).expanduser())
            digests = [mark.digest for mark in pictures.marks(paths, {}).values()]
            names, x = [*paths], pictures.pixels(paths.values(), digests, self._size, self._root).train_x
        else:
            x, names = pictures.named_features(given)
            if x.shape[1] != self._x.shape[1]:
                raise InputError(f"predict: found {x.shape[1]} dimensions, allowed: {self._x.shape[1]}")
        labels, _ = self._read()
        classes = sorted(set(labels.values()))
        found = self._chooser.predict(self._candidates(labels), x)
        return {name: classes[label] for name, label in zip(names, found, strict=True)}

    def _read(self) -> tuple[dict[str, str], set[str]]:
        """Read the labels and the skips; refuse what does not fit the files, or itself."""
        labels, skipped = dict(self._of_folders), set()
        places = dict.fromkeys(labels, "its folder")
        if not self._ledger.exists() and any(q.labels > len(labels) for q in self._state.questions):
            raise InputError(f"{self._ledger}: is missing, and had labels before; allowed: the same file, or --force")
        for file in self._further:
            if not file.is_file():
                raise InputError(f"labels: no file {str(file)!r}; allowed: a CSV file with the columns file and label")
        for row in (r for f in (self._ledger, *self._further) if f.exists() for r in answers.read(f)):
            name = self._resolved(row)
            if not row.label:
                skipped.add(name)
            elif labels.setdefault(name, row.label) != row.label:
                raise _two_labels(name, labels[name], places[name], row)
            places.setdefault(name, row.place)
        return labels, skipped - labels.keys()

    def _take(self, rows: Sequence[answers.Answer]) -> tuple[int, int]:
        labels, skipped = self._read()
        told: dict[str, answers.Answer] = {}
        for row in rows:
            name = self._resolved(row)
            if row.label and labels.get(name, row.label) != row.label:
                raise _two_labels(name, labels[name], str(self._ledger), row)
            earlier = told.setdefault(name, row)
            if row.label and earlier.label and earlier.label != row.label:
                raise _two_labels(name, earlier.label, earlier.place, row)
            told[name] = row if row.label else earlier
        new = [
            (name, row.label) for name, row in told.items() if name not in labels and (row.label or name not in skipped)
        ]
        if new:
            answers.append(self._ledger, new)
            inquiry.save(self._state_file, self._state)
        count = sum(bool(label) for _, label in new)
        return count, len(new) - count

    def _resolved(self, row: answers.Answer) -> str:
        """Find the name that a cell stands for."""
        if not isinstance(row.file, str):
            raise InputError(f"{row.place}: found the file {row.file!r:.60}, allowed: a name")
        for name in (answers.plain(row.file), row.file):
            if name in self._known:
                return name
        close = difflib.get_close_matches(row.file, self._names, n=1)
        meant = f"did you mean {close[0]!r}?" if close else f"allowed: the names of its {len(self._names):,} files"
        raise InputError(f"{row.place}: no file {row.file!r} in {self._where}; {meant}")

    def _refuse_changes(self, now: Mapping[str, inquiry.Mark]) -> None:
        for name, mark in self._state.files.items():
            if name not in now:
                found = "is missing"
            elif now[name].digest != mark.digest:
                found = "has changed"
            else:
                continue
            raise InputError(
                f"{self._where}: {name!r} {found} since {self._state_file.name} was written; allowed: the file as it "
                "was, or --force (restart=True), which remembers the files as they are now"
            )

    def _key(self, labels: Mapping[str, str], skipped: set[str], budget: int) -> str:
        digests = [mark.digest for mark in self._state.files.values()]
        known = [sorted(labels.items()), sorted(skipped), self._names, digests]
        return hashlib.sha256(json.dumps([self._arguments, budget, known], default=repr).encode()).hexdigest()

    @cached_property
    def _pixels(self) -> Dataset:
        digests = [mark.digest for mark in self._state.files.values()]
        return pictures.pixels(self._paths.values(), digests, self._size, self._root)

    def _candidates(self, labels: Mapping[str, str]) -> Candidates:
        classes = {label: number for number, label in enumerate(sorted(set(labels.values())))}
        y = np.array([classes[labels[name]] if name in labels else -1 for name in self._names])
        if self._features is not None:
            return Candidates(self._x, y, len(classes))
        return Candidates(self._pixels.train_x, y, len(classes), self._pixels.mean, self._pixels.std)


def _two_labels(name: str, label: str, place: str, row: answers.Answer) -> InputError:
    return InputError(
        f"{row.place}: found {name!r} with the label {row.label!r}, which has {label!r} in {place}; allowed: one label"
    )


def _kappa(before: Mapping[str, str], now: Mapping[str, str]) -> float | None:
    """Cohen's κ of two rounds' predictions for the files that both have; None if there are none."""
    from sklearn.metrics import cohen_kappa_score

    common = [name for name in now if name in before]
    if not common:
        return None
    pair = [before[name] for name in common], [now[name] for name in common]
    return 1.0 if pair[0] == pair[1] else float(cohen_kappa_score(*pair))  # of one class alone, it is 0 / 0
