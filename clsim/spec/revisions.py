"""Revisions: changes of clsim that give some runs other numbers than an earlier version did, and which runs those are.

The names of a run's revisions are part of its spec and enter its fingerprint, so that a record from before a change is
never taken for one from after it. A run that no revision concerns keeps its fingerprint. A revision is never removed,
since records with its name remain.
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
OF_MEMORY = ("mass", "notes", "classes", "reference", "condensers", "balancing", "rate")
"""Revisions that concern no run without a memory."""

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
    """Weights that a selector gives are masses: they count in the next choice and are compared within a class.

    A user's own selector is taken to give weights, since it cannot be known.
    """
    names = [_outermost(spec["memory"][kind]) for kind in ("buffer", "retrieval")]
    return any(name in WEIGH or _own(name) for name in names)


def _notes(spec: Tables) -> bool:
    """A selector that reads its own earlier scores also gets them inside ``per_class``."""
    return any("per_class" in around and name in NOTE for name, around in _selectors(spec["memory"]["buffer"]))


def _classes(spec: Tables) -> bool:
    """A selector that counts classes counts those known so far, not all those that the head has room for."""
    memory, stream = spec["memory"], spec["stream"]
    if stream["setting"] == "domain" or stream["presentation"] == "joint" or stream["experiences"] == 1:
        return False  # all are known from the beginning
    counting = COUNT if stream["setting"] == "class" else {"prob-cover"}  # the others count the classes of one task
    return any(name in counting for kind in ("buffer", "retrieval") for name, _ in _selectors(memory[kind]))


def _reference(spec: Tables) -> bool:
    """A selector that serves held-out samples serves only those of the classes that it chooses from."""
    memory = spec["memory"]
    held_out = spec["stream"]["validation"] and memory["update"] == "experience"
    return bool(held_out) and any(name in SERVE for name, _ in _selectors(memory["buffer"]))


def _features(spec: Tables) -> bool:
    """A learner's own features, which its predictions use, also serve a memory's choices and nearest neighbours.

    It concerns learners whose features are not simply those of the net.
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


def _balancing(spec: Tables) -> bool:
    """``balancing`` counts the labels of a memory's candidates; it used to be random there."""
    return any(name == "balancing" for kind in ("buffer", "retrieval") for name, _ in _selectors(spec["memory"][kind]))


def _bridge(spec: Tables) -> bool:
    """A strategy of Avalanche has the run's schedule, warm-up, precision, and a fresh optimizer state in an experience.

    The last changes what has such a state: momentum, and the optimizers other than SGD.
    """
    if not str(spec.get("learner", {}).get("name", "")).startswith("avalanche:"):
        return False
    optimizer, bf16 = spec["optimizer"], spec["training"]["precision"] == "bf16"
    scheduled = optimizer["schedule"] != "constant" or optimizer["warmup"] > 0
    return bf16 or scheduled or (optimizer["restart"] and (optimizer["name"] != "sgd" or optimizer["momentum"] > 0))


def _labels(spec: Tables) -> bool:
    """On partly labelled streams, all learners take the same number of steps and see the same labelled views.

    Batch norm learns on in PAWS, CSL and NNCSL, and features are read by class means.
    """
    return bool(spec.get("labels"))


def _condensers(spec: Tables) -> bool:
    """DM draws an augmentation for each class and a rate for few steps; nets of dc and dsa have no momentum; new loops.

    The loops are those between the published numbers of images per class. A user's own condenser is taken to call one
    of these methods, since it cannot be known.
    """
    memory = spec["memory"]
    options, ((name, around), *_) = memory.get("options", {}), _selectors(memory["buffer"])
    if "condensed" in around:
        return name not in COMPONENTS["condensers"]
    if name == "dm":
        return bool(options.get("augment", True)) or not options.get("lr")
    steps, epochs = options.get("steps", 0), options.get("epochs", 0)
    between = name in ("dc", "dsa") or (name in ("dcc", "dsac") and not (steps and epochs))
    return between and steps != 1  # with one step, no net is trained between two


def _lars(spec: Tables) -> bool:
    """LARS adapts the step of the classifier's bias too."""
    return spec.get("optimizer", {}).get("name") == "lars"


def _solarize(spec: Tables) -> bool:
    """Images are solarized from a level on that is drawn for each; those of views are of partly labelled streams."""
    return "solarize" in spec.get("data", {}).get("augment", ())


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


def _candidates(spec: Tables) -> bool:
    """Learning loss chooses among ten candidates a label; ProbCover counts clusters where no class is known yet."""
    asks = spec.get("labelling", {})
    option = {"learning-loss": "candidates_per_label", "prob-cover": "clusters"}
    names = [name for name, _ in _selectors(str(asks.get("selector", "none")))]
    return any(name in option and option[name] not in asks.get("options", {}) for name in names)


def _components(spec: Tables) -> bool:
    """An embedding that is trained has 128 principal components; those of ``embedding.components`` = 0 are all."""
    embedding = spec.get("embedding", {})
    name = str(embedding.get("name", "none"))
    return name != "none" and not name.endswith(".npz") and embedding.get("components", 128) == 128


REVISIONS: dict[str, Callable[[Tables], bool]] = {
    "mass": _mass,
    "notes": _notes,
    "classes": _classes,
    "reference": _reference,
    "features": _features,
    "new-task": _new_task,
    "path": _path,
    "bridge": _bridge,
    "labels": _labels,
    "condensers": _condensers,
    "lars": _lars,
    "solarize": _solarize,
    "balancing": _balancing,
    "start": _start,
    "rate": _rate,
    "seen": _seen,
    "candidates": _candidates,
    "components": _components,
}
"""Name → whether it concerns a run, the oldest first; the first line of a function's docstring says what changed."""


def _own(name: str) -> bool:
    """Whether a name stands for a selector that is not shipped."""
    shipped = name in COMPONENTS["selectors"] or name in COMPONENTS["condensers"] or name == "condensed"
    return not shipped and not registry.is_condenser(name)


def _outermost(name: str) -> str:
    """Return the name of the selector whose weights a (combined) selector returns."""
    combinator, inner = registry.taken_apart(registry.canonical(name))
    if not inner or combinator == "condensed":
        return combinator
    return _outermost(inner[1] if combinator == "prefilter" and len(inner) > 1 else inner[0])


def _selectors(name: str, around: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each selector in a name, with the combinators around it."""
    combinator, inner = registry.taken_apart(registry.canonical(name))
    for part in inner:
        if not part.isdecimal():
            yield from _selectors(part, (*around, combinator))
    if not inner:
        yield combinator, around
