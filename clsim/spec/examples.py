"""A command for each name that uses it, as ``clsim show`` prints it."""

from __future__ import annotations

import shlex

from clsim.spec import abilities, registry
from clsim.spec.components import STREAM_POLICIES
from clsim.spec.flags import as_text
from clsim.spec.run import RunSpec
from clsim.spec.sources import OWN_DATA

_COMBINED = {
    "prefilter": "prefilter(entropy,kcenter,5)",
    "subsample": "subsample(kcenter,100)",
}
"""Combinator of several arguments → a use of it."""

_PARTLY_LABELLED = ("paws", "csl", "nncsl", "pseudo-label", "fixmatch", "mixmatch", "remixmatch", "comatch", "ccic")
"""Learners that are made for streams of which a part is labelled."""


def example(kind: str, name: str) -> str:
    """Return a command that uses a name of a kind.

    >>> example("models", "mlp"), example("studies", "digits")
    ('clsim run --scenario split-digits --set model.name=mlp', 'clsim study digits')
    """
    if kind == "combinators":
        return _run("--buffer", _COMBINED.get(name, f"{name}(kcenter)"))
    if kind in ("selectors", "condensers"):
        return _of_selector(name)
    if kind == "pruners":
        return _run("--batch", name)
    if kind == "pools":
        return _run("--strategy", "finetune", "--label", "margin", "--pool", name, scenario="active-digits")
    if kind in ("acquisitions", "bounds"):
        asked = ("--strategy", "finetune", "--label", name)
        if name in STREAM_POLICIES:
            return _run(*asked, "--label-budget", "10%", "--labels", "2", "--set", "training.epochs=1")
        return _run(*asked, scenario="active-digits")
    if kind in ("learners", "strategies"):
        labels = ("--labels", "10%") if name in _PARTLY_LABELLED else ()
        if kind == "strategies" or name.startswith("avalanche:") or name in registry.file_names("strategies"):
            return _run("--strategy", name, *labels)
        return _run("--set", f"learner.name={name}", *labels)
    if kind == "datasets":
        return _of_data(name)
    if kind == "metrics":
        return shlex.join(["clsim", "report", "--metric", name])
    if kind == "tables":
        return _of_table(name)
    words = {
        "scenarios": ["run", "--scenario", name],
        "studies": ["study", name],
        "reports": ["report", name],
    }
    if kind in words:
        return shlex.join(["clsim", *words[kind]])
    key = {"objectives": "learner.options.objective", "models": "model.name", "optimizers": "optimizer.name"}[kind]
    rate = ("--set", "optimizer.lr=0.001") if name.startswith(("adam", "nadam")) else ()
    return _run("--set", f"{key}={name}", *rate)


def _run(*words: str, scenario: str = "split-digits") -> str:
    return shlex.join(["clsim", "run", "--scenario", scenario, *words])


def _of_selector(name: str) -> str:
    needs = abilities.needs(name).get(name, "")
    if "the new batch" in needs:
        return _run("--strategy", "er", "--set", f"memory.retrieval={name}")
    if "irreducible losses" in needs and "probabilities" in needs:
        return _run("--batch", name)
    if "query" in needs or "private" in needs:  # roles that only the call from Python fills
        roles = "".join(f", {role}=range({i}, {i + 9})" for i, role in ((0, "query"), (9, "private")) if role in needs)
        return f"python -c \"import clsim; print(clsim.select('{name}', dataset='digits', budget=10{roles}).index)\""
    return _run("--buffer", name)


def _of_data(name: str) -> str:
    if name == "sequence":
        return _run(scenario="sequence-digits")
    if name == "hf":
        return _run("--set", "data.dataset=hf:./saved")
    if name in OWN_DATA:
        size, path = (("--set", "data.size=32"), "./images") if name == "image-folder" else ((), "./mine.npz")
        return _run("--set", f"data.dataset={name}", "--set", f"data.path={path}", *size)
    return _run("--set", f"data.dataset={name}")


def _of_table(name: str) -> str:
    """Set the first key of a table to its default."""
    key, value = next(iter(vars(vars(RunSpec())[name]).items()))
    return _run("--set", f"{name}.{key}={as_text(value)}")
