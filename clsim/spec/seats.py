"""Which runs can advance together with other seeds (``training.together``), and why the others run alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clsim.spec.batch import BatchSpec
from clsim.spec.run import RunSpec

LEARNERS = (
    *("sgd", "der", "der++", "er-ace"),
    *("ewc", "online-ewc", "mas", "si", "rwalk", "mean-imm", "mode-imm"),
    *("lwf", "ebll", "lfl", "bic", "icarl", "ss-il"),
)
"""Learners whose steps are those of one loss, of one pass of the whole batch; the others have steps of their own."""


def seated(spec: RunSpec, seeds: Sequence[int]) -> RunSpec:
    """Return a spec that advances together with these seeds, if it says so, and can; else the same spec.

    >>> from clsim.spec.tables import TrainingSpec
    >>> spec = RunSpec(training=TrainingSpec(together=True))
    >>> seated(spec, [0, 1]).training.seeds, seated(spec, [0]).training.seeds
    ((0, 1), ())
    """
    wanted = tuple(dict.fromkeys(seeds))
    if not spec.training.together or len(wanted) < 2 or _apart(spec):
        return spec
    return replace(spec, training=replace(spec.training, seeds=wanted))


def alone(spec: RunSpec) -> str:
    """Say in a line why a run that is to advance together with other seeds runs alone; empty if it does not."""
    if not spec.training.together or spec.training.seeds:
        return ""
    why = _apart(spec) or "there is one seed; give several, as in --seeds 5"
    return f"training.together: the seeds of {spec.strategy!r} run alone, one after another: {why}"


def _apart(spec: RunSpec) -> str:
    """Say why the steps of a run are no steps that seeds can share; empty if they are."""
    learner, objective = spec.learner, str(spec.learner.options.get("objective", "replay"))
    if learner.name not in LEARNERS:
        return f"learner {learner.name!r} has steps of its own, which are not those of one loss of the whole batch"
    if objective != "replay":
        return f"nobody knows whether the objective {objective!r} passes the whole batch once"
    for key, found, usual in (
        ("labelling.selector", spec.labelling.selector, "none"),
        ("batch.selector", spec.batch.selector, BatchSpec().selector),
        ("controller.name", spec.controller.name, "none"),
        ("training.capturable", spec.training.capturable, False),
    ):
        if found != usual:
            return f"{key} is {found!r}"
    return ""
