"""PAWS, CSL and NNCSL: views of an unlabelled sample are to resemble the same labelled samples."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.learners.semi.heads import freeze_norm, projection, refuse_one_size
from clsim.learners.semi.labelled import Labelled
from clsim.learners.sgd import Sgd
from clsim.models.nets import Net, evaluating
from clsim.objectives import soft_neighbours
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.streams.stream import Experience
from clsim.training import neighbours
from clsim.training.contract import Learner, Readout, Setup, Terms
from clsim.training.neighbours import DIAGNOSTIC, by_vote

LARGE = ("large-crop", "flip", "jitter", "solarize", "equalize")
SMALL = ("small-crop", "flip", "jitter", "solarize", "equalize")


@dataclasses.dataclass(frozen=True)
class Views:
    """Options of PAWS, CSL and NNCSL; the defaults are NNCSL's on CIFAR-10, except that there are no small views.

    Attributes:
        per_class: Labelled samples of each class in a step, each in two views by ``data.augment``. A class that has
            fewer gives some of them again.
        large, small: Augmentations of the large and small views of unlabelled samples; see
            :data:`clsim.data.augmentation.AUGMENTATIONS`.
        small_views: Small views of each unlabelled sample, beside two large ones; they need a net that takes images of
            any size.
        projection: Widths of the projection head's layers.
        linear: The weight λ_LIN of the linear head's cross-entropy. None means 0.005 under LARS, whose steps do not
            depend on the scale of a loss, and 1 under other optimizers, where 0.005 would be too little for the head.
        freeze_norm: Whether the statistics of batch norm stay as the first experience left them, as in NNCSL's released
            code but in no paper; scales and shifts still learn. Under Adam the projection's weights then grow.
    """

    per_class: int = 5
    large: Sequence[str] = LARGE
    small: Sequence[str] = SMALL
    small_views: int = 0
    projection: Sequence[int] = (512, 512, 128)
    linear: float | None = None
    freeze_norm: bool = False


class SoftNeighbours(Learner):
    """The learner of PAWS, CSL and NNCSL: a net, a projection head, and their losses. Final.

    L = L_SNN + L_MER + λ_LIN · L_LIN + λ_NND · L_NND; see :mod:`clsim.objectives.soft_neighbours`.
    L_LIN: cross-entropy of the head on labelled samples, current and from memory, over the classes seen so far.
    L_NND: mean of H(p_old(u; S_old), p_new(u; S_new)) over all views u of the unlabelled samples, neither sharpened, S
    the labelled samples in memory, each net encoding its own; the old net is a copy from the experience's beginning,
    in eval mode.

    Labels are smoothed over the classes of the support. Predictions are among the classes seen so far. The further
    readout ``projection-diagnostic`` takes the posterior over what is in memory (without a memory: over the last
    experience's labelled part) instead of the head.

    Args:
        setup: net, memory, transform, generators.
        views: The options of the learner; see :class:`Views`.
        name: The name of the learner, for messages.
        support: The support of L_SNN: the labelled samples of the ``current`` experience alone, or with those in
            memory (``all``).
        blocked: Whether the gradient of L_LIN stops at the features.
        distillation: The weight λ_NND of the distillation.
    """

    takes_late_labels: ClassVar[bool] = True

    def __init__(
        self,
        setup: Setup,
        views: Views,
        *,
        name: str,
        support: Literal["current", "all"],
        blocked: bool,
        distillation: float,
    ) -> None:
        super().__init__(setup)
        self._views, self._name = views, name
        if views.per_class < 1 or views.small_views < 0 or not views.projection or min(views.projection) < 1:
            raise InputError(f"{name}: allowed: per_class from 1, small_views from 0, widths of the projection from 1")
        self._labelled = Labelled(setup, name)
        self._support, self._blocked, self._distillation = support, blocked, distillation
        lars = setup.spec.optimizer.name == "lars"
        self._linear = (0.005 if lars else 1.0) if views.linear is None else views.linear
        self._large = setup.transform.view(views.large, "learner.options.large")
        self._small = setup.transform.view(views.small, "learner.options.small")
        self._projection = projection(setup, views.projection)
        self._sgd = Sgd(setup, beside=self._projection)
        self.old: tuple[Net, nn.Module] | None = None
        self._classes: dict[str, Tensor] = {}
        self._experiences = 0

    def incoming(self, experience: Experience) -> Exemplars:
        """Return the unlabelled part of the experience."""
        if experience.unlabelled is None:
            raise InputError(
                f"learner: {self._name} learns from unlabelled samples, and experience {experience.position + 1} has "
                "none; allowed: fewer labels, or labels.include_labelled = true"
            )
        if self._views.small_views:
            refuse_one_size(self.setup, experience.unlabelled)
        return experience.unlabelled

    def begin(self, experience: Experience) -> None:
        """Copy the net for the distillation, and start the learning-rate schedule."""
        setup = self.setup
        self._labelled.begin(experience)
        self._note_classes(experience)
        self.old = None
        if self._distillation and self._labelled.past is not None:
            self.old = copy.deepcopy(setup.net).eval(), copy.deepcopy(self._projection).eval()
        self._sgd.schedule(setup.steps(experience), setup.epoch(experience))
        for module in (setup.net, self._projection):
            module.train()
            if self._views.freeze_norm and self._experiences:
                freeze_norm(module)

    def told(self, experience: Experience) -> None:
        """Draw the support from the labelled samples that are there now."""
        self._labelled.told(experience)
        self._note_classes(experience)

    def observe(self, batch: Exemplars) -> Terms:
        """Take one step on views of unlabelled samples and of labelled ones, current and past."""
        setup, rng, n = self.setup, self.setup.randomness.augment, len(batch)
        current, past = (self._labelled.support(self._views.per_class, of=of) for of in ("current", "past"))
        labelled = concatenate([part for part in (current, past) if part is not None])
        # large views first and second, then the labelled samples in two views; then the small views
        large = self._large(torch.cat([batch.x, batch.x]), rng)
        inputs = [torch.cat([large, setup.transform.train(torch.cat([labelled.x, labelled.x]), rng)])]
        if self._views.small_views:
            inputs.append(self._small(torch.cat([batch.x] * self._views.small_views), rng))
        with setup.precision():
            features = [setup.net.features(x) for x in inputs]
            z = [self._projection(f) for f in features]
            known = features[0][2 * n :]
            logits = setup.net.logits(known.detach() if self._blocked else known, labelled.task.repeat(2))
        y = labelled.y.repeat(2)
        # rows of the support: of both views, the current samples (they come first), the past ones, or all
        every = torch.arange(2 * len(labelled), device=batch.device).view(2, -1)
        first = 0 if current is None else len(current)
        rows = {"current": every[:, :first], "past": every[:, first:], "all": every}
        queries = [part for out in z for part in out[: 2 * n if out is z[0] else None].split(n)]
        views = self._posteriors(queries, z[0][2 * n :], y, rows, self._support)
        terms = {
            "neighbours": soft_neighbours.consistency(views[:2], views[2:]),
            "mean entropy": soft_neighbours.mean_entropy(views),
            "linear": self._linear * F.cross_entropy(self._among_seen(logits), y),
        }
        if self.old is not None:
            net, projection = self.old
            with setup.precision(), torch.no_grad():
                old = [projection(net.features(x)) for x in inputs]
            before = [part for out in old for part in out[: 2 * n if out is old[0] else None].split(n)]
            targets = self._posteriors(before, old[0][2 * n :], y, rows, "past")
            found = self._posteriors(queries, z[0][2 * n :], y, rows, "past")
            losses = soft_neighbours.cross_entropy(torch.cat(targets), torch.cat(found))
            terms["distillation"] = self._distillation * losses.mean()
            setup.cost.forward_passes += sum(map(len, inputs))
        return self._sgd.descend(terms, sum(map(len, inputs)))

    def finish(self, experience: Experience) -> list[Terms]:
        """Let go of the old net, and count the experience as learnt."""
        self.old = None
        self._experiences += 1
        return []

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Return logits of raw samples, −inf for classes not seen yet."""
        return self._among_seen(self._sgd.predict(x, task))

    def readouts(self) -> dict[str, Readout]:
        """Return the vote in the projection of labelled samples in memory or, without one, of the last experience.

        It is a diagnostic: the projection of CSL and NNCSL holds no loss between classes of different tasks.
        """
        exemplars = self.setup.memory.exemplars
        known = self._labelled.current if exemplars is None else exemplars[exemplars.y >= 0]
        if known is None or not len(known):
            return {}
        return {DIAGNOSTIC: by_vote(self.setup, self._embedded, known)}

    def state_dict(self) -> dict[str, Any]:
        """Return the state of net, projection head and optimizer, the classes seen, and the number of experiences."""
        return {"sgd": self._sgd.state_dict(), "seen": self._labelled.classes.seen, "experiences": self._experiences}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sgd.load_state_dict(state["sgd"])
        self._labelled.classes.seen.copy_(state["seen"])
        self._experiences = state["experiences"]

    def _note_classes(self, experience: Experience) -> None:
        """Note the classes of each support: those that have a labelled sample."""
        self._classes = {
            "current": experience.train.y.unique(),
            "past": experience.train.y[:0] if self._labelled.past is None else self._labelled.past.y.unique(),
            "all": self._labelled.everything().y.unique(),
        }

    def _posteriors(
        self, queries: Sequence[Tensor], support: Tensor, y: Tensor, rows: dict[str, Tensor], of: str
    ) -> list[Tensor]:
        """Return the posterior of each view over the classes of the rows of the support that ``of`` names."""
        chosen = rows[of].flatten()
        labels = neighbours.smoothed(y[chosen], self._classes[of])
        joint = neighbours.posterior(torch.cat(list(queries)), support[chosen], labels)
        return list(joint.split(len(queries[0])))

    def _among_seen(self, logits: Tensor) -> Tensor:
        # before the first experience every class may be guessed
        seen = self._labelled.classes.seen
        return logits.masked_fill(~seen & seen.any(), -torch.inf)

    def _embedded(self, x: Tensor, task: Tensor) -> Tensor:
        """Return embeddings of raw samples, in eval mode, without augmentation."""
        setup = self.setup
        with evaluating(setup.net), evaluating(self._projection), torch.no_grad(), setup.precision():
            return self._projection(setup.net.features(setup.transform.plain(x))).float()


def paws(setup: Setup, *, views: Views = Views()) -> SoftNeighbours:
    """PAWS with replay: support from current classes and memory; the head's gradient stops at the features.

    The options are those of :class:`Views`.

    Source: Assran et al., Semi-Supervised Learning of Visual Features by Non-Parametrically Predicting View Assignments
    with Support Samples (ICCV 2021), as Kang et al. (ICCV 2023) compare it.
    """
    return SoftNeighbours(setup, views, name="paws", support="all", blocked=True, distillation=0.0)


def csl(setup: Setup, *, views: Views = Views()) -> SoftNeighbours:
    """NNCSL without its distillation: support from current classes alone; the head's gradient reaches the features.

    The options are those of :class:`Views`.

    Source: Kang et al., A soft nearest-neighbor framework for continual semi-supervised learning (ICCV 2023), CSL.
    """
    return SoftNeighbours(setup, views, name="csl", support="current", blocked=False, distillation=0.0)


def nncsl(setup: Setup, *, views: Views = Views(), distillation: float = 0.2) -> SoftNeighbours:
    """CSL with nearest-neighbour distillation of the old net's posterior over the classes in memory.

    Args:
        distillation: The weight λ_NND of the distillation.

    The other options are those of :class:`Views`.

    Source: Kang et al., A soft nearest-neighbor framework for continual semi-supervised learning (ICCV 2023), NNCSL.
    """
    return SoftNeighbours(setup, views, name="nncsl", support="current", blocked=False, distillation=distillation)
