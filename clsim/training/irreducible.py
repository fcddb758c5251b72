"""The irreducible-loss net of an experience, and the loss that it gives each labelled sample once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.models import optimizers
from clsim.models.nets import Net, evaluating
from clsim.models.passes import pieces, side_by_side
from clsim.pool.exemplars import Exemplars, batches, concatenate
from clsim.randomness import derive, generator, own_draws
from clsim.selectors.scores import ranks_within
from clsim.spec.batch import IrreducibleSpec
from clsim.streams.stream import Experience
from clsim.training.contract import Setup

COLUMN = "irreducible"
"""Name of the column of irreducible losses."""


@dataclass(frozen=True)
class Fitted:
    """A trained irreducible-loss net, and what it took. Final.

    Attributes:
        net: the net of the best epoch.
        took: samples it was trained on, samples kept back, epochs, the best one, steps, samples passed forward, and the
            loss on what was kept back, then.
    """

    net: Net
    took: dict[str, Any]


class Irreducible:
    """Gives the labelled samples of experiences their irreducible losses, once each. Final.

    The net is trained on the experience's held-out share, or two on halves of its training samples; on the labelled
    exemplars in memory, too. The paper's net sees the future: it is trained before anything else on samples of all
    classes. A stream has no such samples, so each experience has a net of its own. It scores in eval mode, without
    augmentation, while the learner's loss is that of augmented samples, as in the paper's code.

    Everything is drawn from seeds of the net's own and is the same when it is done again, so that a run which is killed
    trains the net again and goes on bit for bit.

    Args:
        spec: how it is trained.
        seed: the run's seed.

    Attributes:
        seconds: time spent here so far.

    Source: Mindermann et al., Prioritized Training on Points that are Learnable, Worth Learning, and Not Yet Learnt
        (ICML 2022), section 3; its code chooses the epoch by the test set, here samples kept back decide.
    """

    def __init__(self, spec: IrreducibleSpec, seed: int) -> None:
        self._spec, self._seed = spec, seed if spec.seed < 0 else spec.seed
        self._held_out: tuple[int, Tensor, Fitted] | None = None
        self.seconds = 0.0

    def score(self, experience: Experience, setup: Setup, *, again: bool = False) -> dict[str, Any]:
        """Put the irreducible loss of each labelled sample of the experience into the setup's columns.

        Args:
            experience, setup: the experience as it is known now, and the setup.
            again: whether a round of labels of the experience has been trained before.

        Returns:
            What it took: ``source``, ``nets``, what :class:`Fitted` says of them (lists, one number a net), samples
            passed forward in all, and seconds. A net that a round of labels before has trained takes no step again.

        Raises:
            InputError: if there are too few samples to train a net on.
        """
        started = time.perf_counter()
        samples, position = experience.train, experience.position
        held_out = experience.validation is not None and len(experience.validation) > 0
        source = self._spec.source if self._spec.source != "auto" else "held-out" if held_out else "halves"
        if source == "held-out":
            fitted = [self._of_held_out(experience, setup, again)]
            losses = self._losses(fitted[0].net, samples, setup)
        else:
            second = halves(samples.y, generator(self._seed, f"irreducible halves {position}"))
            fitted, losses = [], samples.key.new_empty(len(samples))
            for half in (~second, second):  # each net scores the half that it has not seen
                fitted.append(self._fit(samples[half], setup, f"{position} {len(fitted)}"))
                others = (~half).nonzero().flatten()
                losses[others] = self._losses(fitted[-1].net, samples[others], setup)
        setup.columns.put(COLUMN, samples, losses)
        spent = time.perf_counter() - started
        self.seconds += spent
        took = {key: [one.took[key] for one in fitted] for key in fitted[0].took}
        passes = sum(took.pop("passes")) + len(samples)
        return {"source": source, "nets": len(fitted), **took, "passes": passes, "seconds": spent}

    def _of_held_out(self, experience: Experience, setup: Setup, again: bool) -> Fitted:
        """Train a net on the held-out share of an experience, or return it: later rounds of labels change nothing.

        A run that goes on after an interruption trains the net once more, and counts it once.
        """
        stored = setup.memory.stored
        index = torch.empty(0) if stored is None else stored.index
        counted = again and self._held_out is None
        known = self._held_out is not None and self._held_out[0] == experience.position
        if self._held_out is None or not known or not torch.equal(self._held_out[1], index):
            if experience.validation is None or not len(experience.validation):
                raise InputError(
                    f"irreducible.source: nothing is held out of experience {experience.position + 1}; allowed: a "
                    "larger stream.validation, or 'halves'"
                )
            fitted = self._fit(experience.validation, setup, str(experience.position))
            self._held_out = experience.position, index, fitted
            if not counted:
                return fitted
        fitted = self._held_out[2]
        return Fitted(fitted.net, fitted.took | {"epochs": 0, "steps": 0, "passes": 0})

    def _fit(self, samples: Exemplars, setup: Setup, name: str) -> Fitted:
        """Train a fresh net on samples and on the memory; a part of them is kept back and decides how long."""
        kept = setup.memory.exemplars if self._spec.memory else None
        if kept is not None:
            plain = {"weight": None, "soft": None, "score": None, "mass": None}
            samples = concatenate([_plain(samples, plain), _plain(kept[kept.y >= 0], plain)])
        if len(samples) < 2:
            raise InputError(
                f"irreducible: found {len(samples)} samples to train the irreducible-loss net on, allowed: 2 or more: "
                "a larger stream.validation, or more labels"
            )
        rng = generator(self._seed, f"irreducible {name}")
        back = kept_back(samples.y, self._spec.kept_back, rng)
        with own_draws(derive(self._seed, f"irreducible layers {name}"), samples.device):
            net = (setup.other or setup.fresh)(derive(self._seed, f"irreducible weights {name}"))
            return self._trained(net, samples[~back], samples[back], setup, rng, name)

    def _trained(
        self, net: Net, samples: Exemplars, back: Exemplars, setup: Setup, rng: torch.Generator, name: str
    ) -> Fitted:
        spec = self._spec
        augment = generator(self._seed, f"irreducible augment {name}", samples.device)
        optimizer = optimizers.build(spec.optimizer, [p for p in net.parameters() if p.requires_grad])
        size = spec.batch(len(samples))
        best, state, best_epoch, steps, passed, epoch = float("inf"), _state(net), 0, 0, 0, 0
        for epoch in range(1, spec.epochs + 1):
            for batch in batches(samples, size, rng):
                net.train()
                with setup.precision():
                    logits = net(setup.transform.train(batch.x, augment), batch.task)
                optimizer.zero_grad()
                F.cross_entropy(logits, batch.y).backward()
                optimizer.step()
                steps, passed = steps + 1, passed + len(batch)
            found = float(self._losses(net, back, setup).mean())
            passed += len(back)
            if found < best:
                best, state, best_epoch = found, _state(net), epoch
            if spec.patience and epoch - best_epoch >= spec.patience:
                break
        net.load_state_dict(state)
        return Fitted(
            net,
            {
                "samples": len(samples),
                "kept_back": len(back),
                "epochs": epoch,
                "best_epoch": best_epoch,
                "steps": steps,
                "passes": passed,
                "loss": best if best < float("inf") else None,
            },
        )

    @staticmethod
    def _losses(net: Net, samples: Exemplars, setup: Setup) -> Tensor:
        """Compute the cross-entropy of samples, float32 (n,), in eval mode and without augmentation."""

        def passed(rows: slice) -> Tensor:
            part = samples[rows]
            with torch.no_grad(), setup.precision():
                logits = net(setup.transform.plain(part.x), part.task)
                return F.cross_entropy(logits.float(), part.y, reduction="none")

        with evaluating(net):
            return torch.cat(side_by_side(net, passed, pieces(net, len(samples), 500)))


def halves(y: Tensor, rng: torch.Generator) -> Tensor:
    """Draw which samples are in the second half, bool (n,): of each class a half, up to one sample.

    The odd samples of the classes go to either half in turn, so that the halves differ by one sample at most.

    >>> second = halves(torch.tensor([0, 0, 0, 1, 1, 1, 2, 2]), torch.Generator().manual_seed(0))
    >>> int(second.sum()), int(second[:3].sum()) in (1, 2), int(second[6:].sum())
    (4, True, 1)
    """
    order = torch.randperm(len(y), generator=rng).to(y.device)
    by_class = order[y[order].argsort(stable=True)]  # each class in an order of its own, one class after the other
    second = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    second[by_class[1::2]] = True
    return second


def kept_back(y: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Draw which samples are kept back, bool (n,): a share of each class, rounded, and one sample at least.

    >>> kept_back(torch.arange(40) % 2, 0.1, torch.Generator().manual_seed(0)).nonzero().flatten().numel()
    4
    """
    order = torch.randperm(len(y), generator=rng).to(y.device)
    sizes = y.unique(return_inverse=True, return_counts=True)
    wanted = (sizes[2] * share).round().long()[sizes[1]]
    back = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    back[order] = ranks_within(y[order]) < wanted[order]
    if not bool(back.any()):
        back[order[0]] = True
    return back


def _plain(samples: Exemplars, changed: dict[str, None]) -> Exemplars:
    columns: dict[str, Any] = {**samples.columns(), **changed}
    return Exemplars(**columns)


def _state(net: Net) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}
