"""The tables ``[labels]`` and ``[labelling]`` of a spec: which labels are there, and who asks for which others."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Literal

from clsim.errors import InputError, at_least
from clsim.spec.reader import Options


@dataclass(frozen=True)
class LabelsSpec:
    """How many training samples are labelled; the others are learnt from without their label. All zero: every one.

    Give one of ``fraction``, ``per_class`` and ``count``.

    Unlabelled samples need not be of the classes that are being learnt. With ``unlabelled = "stream"`` they are of past
    and future classes too; with ``foreign`` some are of no class of the stream at all, as in an open world. Foreign
    samples have no true label, and no metric counts them; a method that guesses does not know which they are.

    Attributes:
        fraction: share of each class, rounded.
        per_class: labelled samples a class (of each experience, where experiences repeat the classes).
        count: labelled samples in all, divided evenly over the classes.
        include_labelled: whether the unlabelled part also holds the labelled images, without their labels.
        unlabelled: where the unlabelled samples of an experience come from: its ``own`` classes, or those of the whole
            ``stream``, dealt evenly at random over the experiences.
        foreign: a data set of ``clsim list datasets`` whose training images join the unlabelled part, in the size and
            the channels of the stream's.
        foreign_share: how many of them for each training sample of the experience; each is in one experience alone.
    """

    fraction: float = 0.0
    per_class: int = 0
    count: int = 0
    include_labelled: bool = True
    unlabelled: Literal["own", "stream"] = "own"
    foreign: str = ""
    foreign_share: float = 1.0

    def __post_init__(self) -> None:
        at_least(0, "labels.", per_class=self.per_class, count=self.count)
        if not 0 <= self.fraction <= 1:
            raise InputError(f"labels.fraction: found {self.fraction}, allowed: a share from 0 to 1")
        if sum(map(bool, (self.fraction, self.per_class, self.count))) > 1:
            raise InputError("labels: found several of fraction, per_class and count, allowed: one of them")
        if not 0 < self.foreign_share < math.inf:
            raise InputError(f"labels.foreign_share: found {self.foreign_share}, allowed: a finite number above 0")
        if not self.foreign and self.foreign_share != 1:
            raise InputError(f"labels.foreign_share: found {self.foreign_share} without labels.foreign, allowed: 1")

    @property
    def partial(self) -> bool:
        """Whether there is an unlabelled part."""
        return bool(self.fraction or self.per_class or self.count)


@dataclass(frozen=True)
class LabellingSpec:
    """Which samples of an experience get a label: a selector asks for them, an oracle tells.

    The labels of an experience are asked for in rounds. The learner is trained on what is labelled before it chooses
    what to ask for next, and once more after the last round. Whatever was not asked for is there without its label.

    Attributes:
        selector: a name of ``clsim list selectors`` or ``clsim list acquisitions``, ``module:attr`` or
            ``./file.py:attr``; ``none``: labels are there as ``[labels]`` says, and nobody asks.
        options: keyword arguments of the selector.
        budget: labels that are asked for in an experience, in all rounds together; an experience with fewer samples is
            labelled whole. The initial set is not part of it.
        fraction: the budget as a share of the experience's training samples; 0: ``budget`` counts.
        rounds: number of rounds. Their sizes differ by one label at most; the larger ones come first.
        per_round: labels asked for in a round, of which the last may be smaller; 0: ``rounds`` counts.
        initial: how the initial set of an experience is drawn: ``random``; ``class``: ``initial_count`` of each class,
            by the oracle; or a selector that needs no labels, by name.
        initial_count: number of samples of the initial set (of each class, for ``class``); 0: the labelled part of
            ``[labels]`` is the initial set. If that labels nothing either, there is none, and the first choice is made
            by the net as the experience before left it.
        start: how a round is trained. ``scratch``: from where the experience began, with its weights, optimizer,
            memory and generators. ``warm``: from where the round before ended.
        epoch: what an epoch passes over. ``larger``: the larger part, labelled or not, as on partly labelled streams.
            ``labelled``: the labelled part alone.
        candidates: number of samples, drawn at random in each round, that the selector chooses from; 0: all.
        shortfall: what becomes of labels that the selector does not ask for although it could: ``random``: random
            samples get them; ``none``: they are not asked for.
        noise: share of the answers in which the oracle names a wrong class of the experience, drawn at random. The same
            sample always gets the same answer.
        split: seed of the initial set and of the held-out share; −1: the seed of the run.
        update: ``round``: choices are made in rounds, from the whole experience. ``batch``: in one pass over it, the
            selector decides on each batch when it comes; the learner takes ``training.passes`` steps on what was asked
            for. More than one epoch is refused, and ``start`` has no effect. It is the default of stream policies,
            which decide in no other way.
        inject: when the labels of a choice, which are all told before its training begins, are there for the learner.
            ``once``: from the first step. ``linear``: ``inject_first`` of them from the first step, the others one
            after the other until the last step, evenly. ``milestones``: the others in equal parts, one at each of
            ``inject_milestones``. The selector's first picks come first; until its label is there, a sample is
            unlabelled. The number of steps stays the same. The names are those of the field; the schedules are ours.
        inject_first: share of the labels that is there from the first step, rounded up; at least one label.
        inject_milestones: shares of the steps, ascending, at which parts of the labels come, for ``milestones``.
    """

    selector: str = "none"
    options: Options = field(default_factory=dict)
    budget: int = 0
    fraction: float = 0.0
    rounds: int = 1
    per_round: int = 0
    initial: str = "random"
    initial_count: int = 0
    start: Literal["scratch", "warm"] = "scratch"
    epoch: Literal["larger", "labelled"] = "larger"
    candidates: int = 0
    shortfall: Literal["random", "none"] = "random"
    noise: float = 0.0
    split: int = -1
    update: Literal["round", "batch"] = "round"
    inject: Literal["once", "linear", "milestones"] = "once"
    inject_first: float = 0.25
    inject_milestones: tuple[float, ...] = (0.25, 0.5, 0.75)

    def __post_init__(self) -> None:
        at_least(0, "labelling.", budget=self.budget, per_round=self.per_round, initial_count=self.initial_count)
        at_least(0, "labelling.", candidates=self.candidates)
        at_least(1, "labelling.", rounds=self.rounds)
        at_least(-1, "labelling.", split=self.split)
        for key, value in (("fraction", self.fraction), ("noise", self.noise)):
            if not 0 <= value <= 1:
                raise InputError(f"labelling.{key}: found {value}, allowed: a share from 0 to 1")
        if self.budget and self.fraction:
            raise InputError("labelling: found budget and fraction, allowed: one of them")
        if self.rounds > 1 and self.per_round:
            raise InputError("labelling: found rounds and per_round, allowed: one of them")
        if self.update == "batch" and (self.rounds > 1 or self.per_round):
            raise InputError("labelling.update: found 'batch' with rounds, allowed: rounds = 1 and per_round = 0")
        self._check_injection()

    def _check_injection(self) -> None:
        """Refuse labels that cannot come bit by bit."""
        if not 0 < self.inject_first <= 1:
            raise InputError(
                f"labelling.inject_first: found {self.inject_first:g}, allowed: a share above 0, at most 1"
            )
        steps = [0.0, *self.inject_milestones, 1.0]
        if len(steps) < 3 or any(early >= late for early, late in itertools.pairwise(steps)):
            raise InputError(
                f"labelling.inject_milestones: found {list(self.inject_milestones)}, allowed: shares between 0 and 1, "
                "ascending, at least one"
            )
        if self.inject == "once":
            return
        for key, found, allowed in (
            ("update", self.update, "round"),
            ("rounds", self.rounds, 1),
            ("per_round", self.per_round, 0),
        ):
            if found != allowed:
                raise InputError(
                    f"labelling.{key}: found {found!r} with labelling.inject {self.inject!r}, which is for one choice "
                    f"before one training; allowed: {allowed!r}"
                )

    @property
    def asks(self) -> bool:
        """Whether labels are asked for."""
        return self.selector != "none"

    @property
    def size(self) -> str:
        """The budget in words: ``100``, ``5 %``."""
        return f"{100 * self.fraction:.4g} %" if self.fraction else f"{self.budget}"

    def there(self, labels: int, step: int, steps: int) -> int:
        """Count the labels of a choice that are there for the learner at a step of its training.

        Of n labels, ⌈f·n⌉ are there from step 0, with f = ``inject_first``. The other r come, for ``linear``, one after
        the other: ⌈r·t/(T − 1)⌉ of them are there at step t of T; for ``milestones``, ⌈r·i/m⌉ once i of the m
        milestones are passed.

        Args:
            labels: number of labels of the choice.
            step: the step, from 0.
            steps: number of steps of the training.

        >>> gradual = LabellingSpec("random", budget=8, inject="linear")
        >>> [gradual.there(8, step, 13) for step in (0, 1, 2, 3, 11, 12)]
        [2, 3, 3, 4, 8, 8]
        >>> gradual = LabellingSpec("random", budget=8, inject="milestones")
        >>> [gradual.there(8, step, 100) for step in (0, 24, 25, 50, 75)]
        [2, 2, 4, 6, 8]
        """
        if self.inject == "once":
            return labels
        first = min(math.ceil(self.inject_first * labels - 1e-9), labels)
        rest, last = labels - first, max(steps - 1, 0)
        if self.inject == "linear":
            return labels if step >= last else first - -rest * step // last
        passed = sum(step >= int(share * steps + 1e-9) for share in self.inject_milestones)
        return first - -rest * passed // len(self.inject_milestones)

    def asked(self, samples: int, free: int) -> list[int]:
        """Divide the labels that may be asked for over the rounds, the larger ones first; none is empty.

        Args:
            samples: number of training samples of the experience, its initial set included.
            free: number of those that are not labelled yet.

        >>> LabellingSpec("random", budget=10, rounds=4).asked(1000, 990)
        [3, 3, 2, 2]
        >>> LabellingSpec("random", budget=10, per_round=4).asked(1000, 990)
        [4, 4, 2]
        >>> LabellingSpec("random", fraction=0.5, rounds=2).asked(9, 3)
        [2, 1]
        """
        budget = min(round(self.fraction * samples) if self.fraction else self.budget, free)
        if self.per_round:
            whole, rest = divmod(budget, self.per_round)
            return [self.per_round] * whole + [rest] * bool(rest)
        each, rest = divmod(budget, self.rounds)
        return [size for i in range(min(self.rounds, budget)) if (size := each + (i < rest))]
