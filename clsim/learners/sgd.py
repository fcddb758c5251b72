"""The learner of most methods: a net, an objective, an optimizer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clsim.acquisitions.acquisition import Step
from clsim.errors import InputError, in_one_line
from clsim.models import optimizers
from clsim.models.nets import Net, renew_statistics
from clsim.objectives.among import Among, Classes, of_seen
from clsim.objectives.replay import losses
from clsim.pool.exemplars import Exemplars, batches, joint_weight
from clsim.spec import registry
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Learner, Objective, Setup, Stateless, Take, Terms

AnyObjective = Objective | type[Objective] | Callable[[Net, Batch], Terms]
"""An objective: the object, its class, or a function of net and batch."""


class Sgd(Learner):
    """Gradient steps on an objective of new and replayed samples. Final.

    Fine-tuning without a memory, experience replay with one; joint and cumulative training on a stream that is
    presented so. The terms of the setup's acquisition join the loss of every step, and its module is trained with the
    net, by the same optimizer.

    Args:
        setup: net, memory, transform, generators.
        objective: The loss: a name of ``clsim list objectives``, ``module:attr`` or ``./file.py:attr`` (a function of
            net and batch, or a class built with the setup); or, from Python, the function, class or object itself.
        among: Which classes the cross-entropy of a new sample ranges over: ``all``, those ``seen`` so far, those of the
            ``experience``, or those of the ``batch``; see :data:`clsim.objectives.among.Among`. With all but ``all``,
            no loss lowers the logits of classes not seen yet, and predictions leave them out, as a head does that
            grows with each experience.
        beside: A further module whose parameters are trained with the net's, such as a projection head.

    Raises:
        InputError: if a step is to be recorded on a GPU, and the setup's acquisition has terms, which may depend on the
            number of the step.
    """

    takes_terms: ClassVar[bool] = True
    takes_average: ClassVar[bool] = True
    takes_late_labels: ClassVar[bool] = True

    def __init__(
        self,
        setup: Setup,
        *,
        objective: str | AnyObjective = "replay",
        among: Among = "all",
        beside: nn.Module | None = None,
    ) -> None:
        super().__init__(setup)
        self._beside = nn.Sequential() if beside is None else beside
        joins = setup.acquisition is not None and setup.acquisition.joins
        self._acquisition = setup.acquisition if joins else None
        if joins and setup.spec.training.capturable:
            raise InputError("training.capturable: found true with an acquisition that has terms, allowed: false")
        self._joined = nn.Sequential() if self._acquisition is None else self._acquisition.module
        asks = self._acquisition
        names, self._view_batch = (asks.augment, asks.view_batch) if asks is not None else ((), 0)
        view = setup.transform.view
        self._view = view(names, "labelling.options.augment") if names else setup.transform.train
        self._parameters = [p for m in (self.net, self._beside, self._joined) for p in m.parameters()]
        self.optimizer = self._fresh_optimizer()
        table = setup.spec.optimizer
        self._average = optimizers.Average(table, self._parameters, setup.pace) if table.average else None
        self._classes = Classes(setup, among)
        self._unlabelled: Exemplars | None = None
        self._labelled = 0
        self._take: Take | None = None
        self._replays = objective == "replay"
        # then each weight is used once, in one pass of the whole batch
        self._one_pass = self._replays and beside is None and not joins
        self._own = objective if isinstance(objective, str) and ":" in objective else ""
        with in_one_line(f"learner.options.objective {self._own!r}") if self._own else nullcontext():
            self.objective = _built(objective, setup)

    @property
    def steps_together(self) -> bool:
        """Whether the objective is of one pass of the whole batch, and no acquisition's terms join it."""
        return self._acquisition is None and (self._replays or self.objective.one_pass)

    def begin(self, experience: Experience) -> None:
        """Start the learning-rate schedule, with a fresh optimizer state unless ``optimizer.restart`` is false."""
        self.objective.begin(experience)
        self._classes.begin(experience)
        self._divide(experience)
        steps = self.setup.steps(experience)
        self.schedule(steps, self.setup.epoch(experience))
        self._take = self.setup.recorder() if self.steps_together else None
        if self.setup.spec.training.capturable:
            self.setup.memory.draw_ahead(steps)

    def told(self, experience: Experience) -> None:
        """Pass on to the objective that labels have come."""
        self.objective.told(experience)
        self._divide(experience)

    def _divide(self, experience: Experience) -> None:
        """Keep what an acquisition's terms read: how much is labelled, and what is not."""
        self._labelled = len(experience.train)
        self._unlabelled = None if self._acquisition is None else _without_labels(experience)

    def schedule(self, steps: int, epoch: int) -> None:
        """Start the learning-rate schedule over ``steps`` steps, with ``epoch`` steps in an epoch."""
        pace = self.setup.pace
        pace.step, pace.steps, pace.epoch = 0, steps, max(epoch, 1)
        if self._average is not None:
            self._average.begin()
        if self.setup.spec.optimizer.restart:
            self.optimizer = self._fresh_optimizer()

    def observe(self, batch: Exemplars) -> Terms:
        """Take one step on ``batch`` and on ``memory.batch_size`` exemplars that the retrieval chooses."""
        return self.step(batch, self.setup.memory.sample(batch, self.setup.pool).exemplars)

    def step(self, new: Exemplars, old: Exemplars | None) -> Terms:
        """Take one step on the objective of ``new`` and ``old``."""
        self._set_rate()
        terms = self.on_device(new, old) if self._take is None else self._take(self.on_device, new, old)
        self._count(1, len(new) + (0 if old is None else len(old)))
        return terms

    def backward(self, batch: Batch) -> Terms:
        """Compute the gradients of the objective, in place of those of the step before."""
        self._count(0, len(batch.y))
        return self._gradients(batch)

    def on_device(self, new: Exemplars, old: Exemplars | None) -> Terms:
        """Take the part of a step that runs on the device alone.

        Nothing in it waits for the device, counts, or depends on the number of the step: with ``training.capturable``,
        when the learning rate is a tensor and all batches have one size, a GPU records it once and replays it.
        """
        terms = self._gradients(self.prepare(new, old))
        self._move()
        return terms

    def _gradients(self, batch: Batch) -> Terms:
        if not self.net.training:
            self.net.train()
        seat = self.setup.seat
        if seat is not None and self.steps_together:
            self._forget()
            return seat.descend(self.net, batch.x, self.setup.precision, lambda: self._terms(batch))
        beside = self.setup.aside() if self._one_pass else None
        with self.setup.precision(), nullcontext() if beside is None else beside:
            terms = self._terms(batch) if self._acquisition is None else self._with_acquisition(batch)
        detached = self._descent(terms)
        if beside is not None:
            beside.join()
        return detached

    def _with_acquisition(self, batch: Batch) -> Terms:
        """Compute the terms of the objective and, of the same forward pass, those of the acquisition."""
        with self.net.tapped() as passes:
            terms = self._terms(batch)
        whole = next((made for made in passes if len(made.features) == len(batch.y)), None)
        if self._acquisition is None or whole is None:
            raise InputError(
                "learner.options.objective: it passes no whole batch through the net, and the run's acquisition needs "
                "the maps of one; allowed: an objective that calls net(batch.x, batch.task) or net.features(batch.x)"
            )
        with torch.no_grad():
            each = losses(self.net.logits(whole.features, batch.task), batch)
        progress = self.setup.pace.step / max(self.setup.pace.steps, 1)
        views, view_task = self._views(self._acquisition.views)
        seen = Step(
            x=batch.x,
            y=batch.y,
            new=batch.new,
            weight=batch.weight,
            maps=whole.maps,
            features=whole.features,
            losses=each,
            progress=progress,
            net=self.net,
            task=batch.task,
            views=views,
            view_task=view_task,
            labelled=self._labelled,
            unlabelled=0 if self._unlabelled is None else len(self._unlabelled),
        )
        own = self._acquisition.terms(seen)
        if twice := terms.keys() & own.keys():
            raise InputError(f"labelling.selector: its term {min(twice)!r} has the name of one of the learner's terms")
        return {**terms, **own}

    def _views(self, count: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """Draw samples without a label for the acquisition's terms: ``count`` augmented views of them, their tasks."""
        if not count or self._unlabelled is None:
            return (), torch.empty(0, dtype=torch.int64, device=self.setup.device)
        draws, augment = self.setup.randomness.order, self._view
        size = self._view_batch or self.setup.spec.training.batch_size
        rows = torch.randperm(len(self._unlabelled), generator=draws)[:size].to(self.setup.device)
        x = self._unlabelled.x[rows]
        self._count(0, count * len(rows))
        return tuple(augment(x, self.setup.randomness.augment) for _ in range(count)), self._unlabelled.task[rows]

    def descend(self, terms: Terms, passed: int) -> Terms:
        """Take one step on terms that the learner computed itself.

        Args:
            terms: The terms, whose sum is the loss.
            passed: The number of samples that went forward through the net for these terms.
        """
        self._count(0, passed)
        detached = self._descent(terms)
        self.apply()
        return detached

    def _terms(self, batch: Batch) -> Terms:
        """Compute the terms of the objective; one of the user's own is checked, and its error is one line."""
        if not self._own:
            return self.objective(self.net, batch)
        with in_one_line(f"learner.options.objective {self._own!r}"):
            terms = self.objective(self.net, batch)
            losses = list(terms.values()) if isinstance(terms, dict) else []
            if not losses or not all(isinstance(one, Tensor) and one.ndim == 0 for one in losses):
                found = " ".join(repr(terms).split())[:60]
                raise InputError(f"returned {found}, allowed: a dictionary of terms, each a tensor of one number")
        return terms

    def _descent(self, terms: Terms) -> Terms:
        self._forget()
        reduce(torch.add, terms.values()).backward()
        return {name: term.detach() for name, term in terms.items()}

    def _forget(self) -> None:
        """Let go of the gradients of the step before."""
        for parameter in self._parameters:
            parameter.grad = None

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        spec = self.setup.spec
        head = self.net.head.parameters()
        return optimizers.build(spec.optimizer, self._parameters, head, on_device=spec.training.capturable)

    def apply(self) -> None:
        """Take one step of the optimizer along the gradients, at the learning rate of the schedule."""
        self._set_rate()
        self._move()
        self._count(1, 0)

    def _move(self) -> None:
        clip = self.setup.spec.optimizer.clip
        if clip:
            nn.utils.clip_grad_norm_(self._parameters, clip)
        self.optimizer.step()

    def _set_rate(self) -> None:
        optimizers.set_rate(self.optimizer, self.setup.rate)

    def _count(self, steps: int, passed: int) -> None:
        self.setup.pace.step += steps
        self.setup.cost.steps += steps
        self.setup.cost.forward_passes += passed
        if steps and self._average is not None:
            self._average.step()

    def settle(self, experience: Experience) -> None:
        """Put the mean of the last weights in their place, if ``optimizer.average`` says so, of all modules trained.

        Batch norm's statistics in the net are those of one more pass over the samples, in batches as those of training,
        with their augmentation and with exemplars from memory.
        """
        if self._average is None or not self._average.settle():
            return
        setup, training = self.setup, self.setup.spec.training
        parts = batches(self.incoming(experience), training.batch_size, setup.randomness.order, training.last_batch)
        inputs = (self.prepare(part, setup.memory.sample(part, setup.pool).exemplars).x for part in parts)
        with setup.precision():
            self._count(0, renew_statistics(self.net, inputs))

    def finish(self, experience: Experience) -> list[Terms]:
        self.objective.finish(experience)
        return []

    def remember(self, samples: Exemplars) -> Exemplars:
        return self.objective.remember(samples)

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Compute logits of raw samples; unless ``among`` is ``all``, −inf for classes that have not been seen."""
        logits = super().predict(x, task)
        if self._classes.among == "all":
            return logits
        return of_seen(logits, self._classes.seen, self.net.visible[task])

    @property
    def read_net(self) -> Net | None:
        """The net: of all else that a prediction needs, the classes seen, it only reads."""
        return self.net

    def diagnostics(self) -> dict[str, float]:
        return self.objective.diagnostics()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of net, optimizer, objective and modules beside, and the classes seen if they are used."""
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
            **({"beside": beside} if (beside := self._beside.state_dict()) else {}),
            **({"joined": joined} if (joined := self._joined.state_dict()) else {}),
            **({} if self._classes.among == "all" else {"seen": self._classes.seen}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._take = None  # a recorded step holds on to the tensors that are replaced now
        self.net.load_state_dict(state["net"])
        optimizers.load(self.optimizer, state["optimizer"])
        if self.setup.spec.training.capturable:
            optimizers.rates_on_device(self.optimizer)
        self.objective.load_state_dict(state["objective"])
        self._beside.load_state_dict(state.get("beside", {}))
        self._joined.load_state_dict(state.get("joined", {}))
        if self._classes.among != "all" and "seen" in state:  # er-ace had its own in the objective before
            self._classes.seen.copy_(state["seen"])

    def prepare(self, new: Exemplars, old: Exemplars | None) -> Batch:
        """Make a batch of new and replayed samples, augmented together unless the new ones are augmented already."""
        y, task, weight, soft = new.y, new.task, new.weight, None
        if old is not None:
            y, task = torch.cat([y, old.y]), torch.cat([task, old.task])
            weight = joint_weight([new, old])
            if old.soft is not None:
                soft = torch.cat([old.soft.new_full((len(new), old.soft.shape[1]), torch.nan), old.soft])
        setup, replayed = self.setup, None if old is None else old.x
        x = setup.prepared.train(new.x, replayed, setup.transform, setup.randomness.augment)
        return Batch(x, y, task, len(new), weight, soft, self._classes.rows(y, len(new)), setup.spec.batch.prunes)


def _without_labels(experience: Experience) -> Exemplars | None:
    """Return the unlabelled part without the labelled samples that it may hold too; None where nothing is left."""
    part = experience.unlabelled
    if part is not None:
        part = part[~torch.isin(part.index, experience.train.index)]
    return part if part is not None and len(part) else None


def _built(objective: str | AnyObjective, setup: Setup) -> Objective:
    """Build the objective from a name, a class of objectives, or a function of net and batch, if it is not one already.

    Raises:
        InputError: if it is a class that is not derived from :class:`clsim.Objective`.
    """
    found: Any = registry.component("objectives", objective) if isinstance(objective, str) else objective
    if isinstance(found, Objective):
        return found
    built = found(setup) if isinstance(found, type) else Stateless(found)
    if not isinstance(built, Objective):
        raise InputError(
            f"learner.options.objective: {found.__name__} is a class that is no clsim.Objective; allowed: a function "
            "of net and batch, or a class derived from clsim.Objective, which has defaults for all but the call"
        )
    return built
