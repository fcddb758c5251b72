"""The table ``[labelling]`` of a spec: who chooses which samples are labelled, and how many."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from clsim.errors import InputError, at_least
from clsim.spec.reader import Options


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
            selector decides on each batch when it comes; the learner is trained on what it asked for.
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

    @property
    def asks(self) -> bool:
        """Whether labels are asked for."""
        return self.selector != "none"

    @property
    def size(self) -> str:
        """The budget in words: ``100``, ``5 %``."""
        return f"{100 * self.fraction:.4g} %" if self.fraction else f"{self.budget}"

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
        return [size for i in range(self.rounds) if (size := each + (i < rest))]
