"""Label rounds: within an experience, a selector asks for labels, the oracle tells them, and the learner is trained.

The learner is trained on what is labelled, the selector chooses by the learner's net what to ask for next, and so on
until the budget is spent; then the learner is trained once more. A selector may label further samples itself, which
join the next training alone. Each choice is on disk before it is trained on, so that a run that is killed does one
round again at most. The memory is updated, and the experience ends, after the last
round alone; see :mod:`clsim.training.loop`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clsim.errors import InputError, first_line
from clsim.pool.contracts import chosen, pseudo_labelled
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.randomness import generator
from clsim.records.store import RunFolder
from clsim.streams.stream import Experience
from clsim.training.checkpoint import State, copied, misfit, refuse_unlike, restore, snapshot
from clsim.training.contract import Learner, Losses, Setup
from clsim.training.experiment import Experiment
from clsim.training.machine import peak_bytes

SHOWN = 1000
"""Number of samples at most among which the distances of a choice are measured."""


class LabelRounds:
    """The label rounds of a run. Final.

    Args:
        experiment: the steps of the run, whose spec has the table of labelling.
        folder: the run's folder, which keeps the rounds of an experience that is not finished.

    Raises:
        InputError: if the labels of the stream are known.
    """

    def __init__(self, experiment: Experiment, folder: RunFolder) -> None:
        self._experiment, self._folder = experiment, folder
        self._spec, self._seed = experiment.spec.labelling, experiment.spec.seed
        self._stream, self._oracle = experiment.stream, experiment.stream.oracle

    def learn(
        self, position: int, setup: Setup, learner: Learner
    ) -> tuple[Setup, Learner, Experience, Losses, list[dict[str, Any]]]:
        """Carry out the rounds of one experience, from where they were interrupted if they were.

        Args:
            position: the position of the experience.
            setup, learner: the setup and the learner as the experience before left them.

        Returns:
            The setup and the learner to go on with, the experience as the learner knows it, the losses of the last
            round, and an entry for each training.

        Raises:
            InputError: if the learner cannot be saved, if what was saved does not fit, or if nothing gets a label.
        """
        before, warm = snapshot(setup, learner), self._spec.start == "warm"
        if before is None:
            name = setup.spec.learner.name
            raise InputError(f"labelling: found learner {name!r}, which cannot be saved; allowed: one that can")
        before, samples = copied(before), len(self._stream.candidates(position)[1])
        entries = self._resumed(position, samples, setup, learner)
        if not entries:
            entries = [self._first(position, samples, setup, learner)]
            setup.randomness.load_state_dict(before["randomness"])  # a committee has drawn from it, a resumed run not
        initial = 0 if entries[0]["round"] else len(entries[0]["places"])
        sizes = self._spec.asked(samples, samples - initial)
        while True:
            entry, first = entries[-1], len(entries) == 1
            if not (first or warm):
                setup, learner = self._anew(before, setup)
            experience = dataclasses.replace(self._stream.experience(position), again=warm and not first)
            guessed = self._guessed(position, entry)
            last = entry["round"] == len(sizes)
            self._show(entry["round"], len(sizes), experience, setup)
            if setup.acquisition is not None:
                setup.acquisition.begin(len(entries) - 1, len(sizes) + (not entries[0]["round"]))
            seconds, losses = setup.cost.train_seconds, Losses()
            with self._experiment.training():
                waiting = self._stream.rows(position, entry["places"]) if entry["round"] else None
                if len(experience.train) or not self._stream.asked_outsiders(position):
                    losses = self._experiment.fit(
                        experience,
                        setup,
                        learner,
                        offers=last or not warm,
                        guessed=guessed,
                        waiting=waiting,
                        number=entry["round"],
                    )
                if learner.trains_at_end and not last:  # undone before the next round, as all else
                    self._experiment.end(experience, setup, learner)
            entry["labelled"] = int(self._oracle.revealed(position).sum())  # an outsider costs as much
            entry["train_seconds"] = setup.cost.train_seconds - seconds
            if last:
                return setup, learner, experience, losses, entries
            row, rare = self._experiment.measure(learner, position)
            entry |= {"accuracy": row, "accuracy_rare": rare}
            entries.append(self._ask(position, entry["round"] + 1, sizes, setup, learner, trained=True))
            self._save(position, entries, setup, snapshot(setup, learner) if warm else None)

    def _show(self, number: int, rounds: int, experience: Experience, setup: Setup) -> None:
        labelled = len(experience.train)
        images = self._experiment.images(labelled, experience, setup)
        self._experiment.progress.asked(number, rounds, labelled, images)

    def _first(self, position: int, samples: int, setup: Setup, learner: Learner) -> dict[str, Any]:
        """Reveal the initial set or, where there is none, let the selector choose by the net as it is."""
        initial, count = self._oracle.initial[position], self._spec.initial_count
        if count and self._spec.initial not in ("random", "class"):
            initial = self._picked(position, 0, min(count, samples), setup, learner)["places"]
        if len(initial):
            self._oracle.tell(position, np.asarray(initial), "initial")
            entry = entry_of(position, 0, "initial", [int(place) for place in initial])
        elif sizes := self._spec.asked(samples, samples):
            entry = self._ask(position, 1, sizes, setup, learner, trained=False)
            if not entry["places"]:
                raise InputError(
                    f"labelling: nothing of experience {position + 1} is labelled, and {entry['by']!r} asks for no "
                    "sample of it; allowed: labelling.shortfall = 'random', or an initial set, as in --labels 2"
                )
        else:
            raise InputError(
                f"labelling: nothing of experience {position + 1} is labelled, and its budget is no sample; allowed: "
                "a larger labelling.budget or labelling.fraction"
            )
        self._save(position, [entry], setup, None)
        return entry

    def _ask(
        self, position: int, number: int, sizes: list[int], setup: Setup, learner: Learner, *, trained: bool
    ) -> dict[str, Any]:
        """Let the selector choose the samples of round ``number`` of all rounds' ``sizes``, and reveal their labels.

        ``trained`` is as for :meth:`_picked`.
        """
        if setup.acquisition is not None:
            setup.acquisition.next_choice(number - 1, len(sizes))
        entry = self._picked(position, number, sizes[number - 1], setup, learner, trained)
        self._oracle.tell(position, np.asarray(entry["places"], dtype=np.int64), entry["by"], number)
        return entry

    def _picked(
        self, position: int, number: int, size: int, setup: Setup, learner: Learner, trained: bool = False
    ) -> dict[str, Any]:
        """Choose among the samples that are not labelled yet; return the entry of the choice.

        Args:
            position, number, size, setup, learner: the experience, the round, the labels asked for, and who learns.
            trained: whether the learner was trained on the experience; else an acquisition labels nothing itself.
        """
        started = time.perf_counter()
        setup.classes.update(self._stream.labels_seen(position))
        samples, places = self._stream.candidates(position)
        rng = generator(self._seed, f"label {position} {number}")
        if 0 < self._spec.candidates < len(samples):
            drawn = torch.randperm(len(samples), generator=rng)[: max(self._spec.candidates, size)].sort().values
            samples, places = samples[drawn.to(samples.device)], places[drawn.numpy()]
        # a draw by the keys that a random memory goes by would decide there which experience keeps more
        samples = dataclasses.replace(samples, key=torch.rand(len(samples), generator=rng).to(samples.device))
        experience = self._stream.experience(position)
        labelled = [experience.train, *remembered(setup, experience.train)]
        known = concatenate(labelled)
        roles = self._stream.roles_at(position, known)
        pool = learner.pool(samples, labelled=known, reference=experience.validation, **roles)
        name = self._spec.selector if number else self._spec.initial
        select = setup.asks if number else setup.asks_first
        if select is None:
            raise InputError(f"labelling: there is no selector {name!r}, allowed: a setup that has it")
        if setup.acquisition is not None and number:
            setup.acquisition.fit(pool, rng)
        bound = bool(number) and setup.acquisition is not None and setup.acquisition.bound
        if bound:
            truth = torch.from_numpy(self._oracle.truth(position, places)).to(samples.device)
            seen = sum(self._stream.test_sizes[: position + 1])
            setup.acquisition.reads(truth, self._stream.tests[:seen])  # type: ignore[union-attr]
        by = f"labelling.selector {name!r}"
        rows = chosen(select, pool, size, rng, by).index
        if len(rows) < size and self._spec.shortfall == "random":
            order = torch.randperm(len(samples), generator=rng).to(rows.device)
            rows = torch.cat([rows, order[~torch.isin(order, rows)][: size - len(rows)]])
        seconds = time.perf_counter() - started
        setup.cost.select_seconds += seconds
        entry = entry_of(position, number, name, places[rows.cpu().numpy()].tolist())
        entry |= {"bound": bound, "select_seconds": seconds, "peak_bytes": peak_bytes(samples.device)}
        entry |= spread(samples, rows, known, learner)
        if trained and setup.acquisition is not None and setup.acquisition.guesses:
            rows, labels = pseudo_labelled(setup.acquisition.pseudo_labels, pool, rows, experience.classes, by)
            entry["guesses"] = {"places": places[rows.cpu().numpy()].tolist(), "labels": labels.tolist()}
        return entry

    def _guessed(self, position: int, entry: dict[str, Any]) -> Exemplars | None:
        """Return the samples that join the training of an entry with labels that the acquisition gave them."""
        guesses = entry.get("guesses")
        return None if not guesses or not guesses["places"] else self._stream.guessed(position, **guesses)

    def _anew(self, before: State, last: Setup) -> tuple[Setup, Learner]:
        """Make a setup and a learner in the state in which the experience began; the acquisition keeps its own state.

        Of the acquisition, the module that is trained with the net goes back too, by the learner's state.
        """
        setup, learner = self._experiment.assemble()
        restore({**copied(before), **_own_state(last)}, setup, learner)
        return setup, learner

    def _save(self, position: int, entries: list[dict[str, Any]], setup: Setup, warm: State | None) -> None:
        cost = dataclasses.asdict(setup.cost)
        rounds = {"position": position, "entries": entries, "cost": cost, "state": warm}
        rounds["batches"] = self._experiment.course(position)
        self._folder.save_rounds({**rounds, **_own_state(setup)})

    def _resumed(self, position: int, samples: int, setup: Setup, learner: Learner) -> list[dict[str, Any]]:
        """Go back to where the rounds of this experience were interrupted; return their entries, if there are any."""
        saved = self._folder.rounds()
        if saved is None or 0 <= saved["position"] < position:  # the run was killed before it could delete the latter
            return []
        try:
            first = 0 if len(self._oracle.initial[position]) or self._spec.initial_count else 1
            if wrong := misfit(saved, self._spec, position, samples, first):
                raise ValueError(wrong)
            for entry in saved["entries"]:
                self._oracle.tell(position, np.asarray(entry["places"], dtype=np.int64), entry["by"], entry["round"])
            self._guessed(position, saved["entries"][-1])
            vars(setup.cost).update(saved["cost"])
            self._experiment.went_on(position, saved.get("batches", []))  # earlier versions did not save them
            own = self._experiment.own_code  # whose state may have any form
            refuse_unlike(saved, {} if own else _own_state(setup), "rounds")
            if setup.acquisition is not None:
                setup.acquisition.load_state_dict(saved["acquisition"])
            if saved["state"] is not None:
                refuse_unlike(saved["state"], {} if own else snapshot(*self._experiment.assemble()), "state")
                learner.begin(self._stream.experience(position))  # what a method holds fast is from before this
                restore(saved["state"], setup, learner)
            return saved["entries"]
        except Exception as error:  # whatever a loader raises, the state is not what it can load
            raise InputError(
                f"rounds.pt does not fit this run ({first_line(error)}); run it again with --fresh"
            ) from None


def _own_state(setup: Setup) -> State:
    """Return a copy of the acquisition's state, if there is an acquisition."""
    return {} if setup.acquisition is None else {"acquisition": copied(setup.acquisition.state_dict())}


def remembered(setup: Setup, besides: Exemplars | None = None) -> list[Exemplars]:
    """Return the labelled exemplars of the memory, without what their selector noted.

    Args:
        setup: the setup, with its memory.
        besides: samples of one experience, of which no exemplar is returned.
    """
    held = setup.memory.exemplars
    if held is None:
        return []
    kept = held.y >= 0
    if besides is not None and len(besides):  # which a memory that every batch updates may hold already
        kept &= (held.task != besides.task[0]) | ~torch.isin(held.index, besides.index)
    return [dataclasses.replace(held[kept], weight=None, soft=None, score=None, mass=None)]


def entry_of(position: int, number: int, by: str, places: list[int]) -> dict[str, Any]:
    """Begin the entry of a training: who asked for which places of an experience, in which round."""
    unknown = {"select_seconds": 0.0, "peak_bytes": 0, "radius": None, "distance": None, "unique": None}
    asked = {"experience": position, "round": number, "by": by, "bound": False, "places": places}
    return {**asked, "labelled": 0, "accuracy": [], "train_seconds": 0.0, **unknown}


def spread(samples: Exemplars, rows: Tensor, labelled: Exemplars, learner: Learner) -> dict[str, float | None]:
    """Measure how a choice lies among the candidates, by the learner's features.

    Returns:
        ``radius``: the largest distance of a candidate from the next sample that is chosen or labelled; ``distance``:
        the mean distance between two chosen samples; both among the first :data:`SHOWN` of each kind, and None where
        features are not finite. ``unique``: the share of the chosen samples that are no copies of others.
    """
    picks = samples[rows]
    different = len(picks.x.flatten(1).unique(dim=0)) / len(picks) if len(picks) else None
    parts = [part[:SHOWN] for part in (samples, picks, labelled)]
    features = [learner.features(part.x, part.task) if len(part) else None for part in parts]
    pool, picked, known = features
    if pool is None or picked is None or not pool.isfinite().all():
        return {"radius": None, "distance": None, "unique": different}
    centres = picked if known is None else torch.cat([picked, known])
    radius = float(torch.cdist(pool, centres).amin(1).max())
    distance = float(torch.pdist(picked).mean()) if len(picked) > 1 else 0.0
    found = {"radius": radius, "distance": distance}  # whose squares may overflow
    return {**{name: value if math.isfinite(value) else None for name, value in found.items()}, "unique": different}
