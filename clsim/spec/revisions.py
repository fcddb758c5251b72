"""Revisions: what gives runs other numbers than an earlier version of clsim did, and which runs those are.

The names of a run's revisions are part of its spec and enter its fingerprint, so that numbers of before and after are
never taken for the same run. A run that no revision concerns keeps the fingerprint that it has always had. A revision
is never taken away, since the records that bear its name stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from clsim.spec import registry
from clsim.spec.components import COMPONENTS

Tables = Mapping[str, Any]
"""A spec as plain tables, as it stands in a file."""

WEIGH = {"craig", "grad-match", "sparse-approximation"}
NOTE = {"ring", "gss-greedy"}
SERVE = {"grad-match", "glister", "glister-active"} | {
    "flvmi",
    "flqmi",
    "gcmi",
    "logdetmi",
    "com",
    "flcmi",
    "logdetcmi",
}
COUNT = {"prob-cover", "base", "boundary-margin"}
OWN_CHOICES = ("fixmatch", "mixmatch", "remixmatch", "comatch", "hat", "packnet")
OWN_READOUT = ("hat", "packnet", "mean-imm", "mode-imm")
OF_MEMORY = ("mass", "notes", "classes", "reference", "rate")
BLIND = {"random", "reservoir", "class-balanced", "task-balanced", "ring", *COMPONENTS["condensers"]}


def revisions(spec: Tables) -> list[str]:
    """Name the revisions that concern a run, the oldest first.

    >>> memory = {"buffer": "craig", "retrieval": "random", "update": "experience"}
    >>> stream = {"setting": "class", "presentation": "separate", "experiences": 5, "validation": 0.0}
    >>> revisions({"memory": memory, "stream": stream}), revisions({"memory": {"buffer": "none"}, "stream": stream})
    (['mass'], [])
    """
    memory = spec["memory"]
    keeps = memory["buffer"] != "none"
    named = {"buffer": str(memory["buffer"]), "retrieval": str(memory.get("retrieval", "random"))}
    spec = {**spec, "memory": {**memory, **named}}
    return [name for name, concerns in REVISIONS.items() if (keeps or name not in OF_MEMORY) and concerns(spec)]


def _mass(spec: Tables) -> bool:
    """A selector gives weights: they are masses, count in the next choice, and are compared within a class.

    Whether a selector of one's own does cannot be known: it counts as one that does.
    """
    names = [_outermost(spec["memory"][kind]) for kind in ("buffer", "retrieval")]
    return any(name in WEIGH or _own(name) for name in names)


def _notes(spec: Tables) -> bool:
    """A selector that reads its own scores is applied to each class apart: they reach it."""
    return any("per_class" in around and name in NOTE for name, around in _selectors(spec["memory"]["buffer"]))


def _classes(spec: Tables) -> bool:
    """A selector counts the classes known so far, in place of those that the head has room for."""
    memory, stream = spec["memory"], spec["stream"]
    if stream["setting"] == "domain" or stream["presentation"] == "joint" or stream["experiences"] == 1:
        return False  # all are known from the beginning
    counting = COUNT if stream["setting"] == "class" else {"prob-cover"}  # the others look at a task's own
    return any(name in counting for kind in ("buffer", "retrieval") for name, _ in _selectors(memory[kind]))


def _reference(spec: Tables) -> bool:
    """A selector that serves held-out samples serves those of the classes that it chooses from, and no others."""
    memory = spec["memory"]
    held_out = spec["stream"]["validation"] and memory["update"] == "experience"
    return bool(held_out) and any(name in SERVE for name, _ in _selectors(memory["buffer"]))


def _features(spec: Tables) -> bool:
    """What is made of a learner's features is made of those that its predictions are made of, where it has its own.

    Those are the choices of a memory, and the readout by nearest neighbours.
    """
    learner, memory = spec.get("learner", {}).get("name"), spec["memory"]
    if learner in OWN_READOUT and spec.get("labels"):
        return True
    if learner not in OWN_CHOICES or memory["buffer"] == "none":
        return False
    return any(name not in BLIND for kind in ("buffer", "retrieval") for name, _ in _selectors(memory[kind]))


def _new_task(spec: Tables) -> bool:
    """The new-task loss of lwf, ebll and lwm ranges over the classes of the experience, where nothing is replayed."""
    learner, stream = spec.get("learner", {}), spec["stream"]
    if learner.get("name") not in ("lwf", "ebll", "lwm") or "among" in learner["options"]:
        return False
    several = stream["presentation"] != "joint" and stream["experiences"] != 1
    return several and stream["setting"] == "class" and spec["memory"]["buffer"] == "none"


def _path(spec: Tables) -> bool:
    """The paths of si and rwalk go back with the weights to the best epoch."""
    return spec.get("learner", {}).get("name") in ("si", "rwalk") and bool(spec.get("training", {}).get("patience"))


def _start(spec: Tables) -> bool:
    """The options that si and hat have where none are given are no longer those that a search begins with."""
    learner = spec.get("learner", {})
    names = {"si": ("strength",), "hat": ("s_max", "c")}.get(learner.get("name", ""), ())
    return any(name not in learner["options"] for name in names)


def _rate(spec: Tables) -> bool:
    """The virtual step of mir is at the rate of the learner, where it was at 0.1."""
    memory, optimizer = spec["memory"], spec.get("optimizer", {})
    given = spec.get("controller", {}).get("name", "none") == "none"
    if given and optimizer.get("lr") == 0.1 and optimizer["schedule"] == "constant" and not optimizer["warmup"]:
        return False
    options = {"buffer": memory.get("options", {}), "retrieval": memory.get("retrieval_options", {})}
    return any(name == "mir" and "lr" not in options[kind] for kind in options for name, _ in _selectors(memory[kind]))


def _seen(spec: Tables) -> bool:
    """Predictions leave out classes not seen yet, where no loss lowers their logits."""
    learner, stream = spec.get("learner", {}), spec["stream"]
    usual = {
        "er-ace": ("classes", "batch"),
        "sgd": ("among", "all"),
        "der": ("among", "all"),
        "der++": ("among", "all"),
    }
    option, choice = usual.get(str(learner.get("name")), ("", "all"))
    if option in learner.get("options", {}):
        choice = learner["options"][option]
    several = stream["presentation"] != "joint" and stream["experiences"] != 1
    return choice != "all" and several and stream["setting"] == "class"


REVISIONS: dict[str, Callable[[Tables], bool]] = {
    "mass": _mass,
    "notes": _notes,
    "classes": _classes,
    "reference": _reference,
    "features": _features,
    "new-task": _new_task,
    "path": _path,
    "start": _start,
    "rate": _rate,
    "seen": _seen,
}
"""Name → which runs it concerns, the oldest first; a docstring's first line says what has changed."""


def _own(name: str) -> bool:
    """Whether a name leads to a selector that is not shipped."""
    shipped = name in COMPONENTS["selectors"] or name in COMPONENTS["condensers"] or name == "condensed"
    return not shipped and not registry.is_condenser(name)


def _outermost(name: str) -> str:
    """The selector whose weights come out in the end."""
    combinator, inner = registry.taken_apart(registry.canonical(name))
    if not inner or combinator == "condensed":
        return combinator
    return _outermost(inner[1] if combinator == "prefilter" and len(inner) > 1 else inner[0])


def _selectors(name: str, around: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each selector in a name, with the combinators around it."""
    combinator, inner = registry.taken_apart(registry.canonical(name))
    for part in inner:
        if not part.isdecimal():
            yield from _selectors(part, (*around, combinator))
    if not inner:
        yield combinator, around
