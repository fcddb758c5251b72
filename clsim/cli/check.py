"""The command ``clsim check``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from clsim.cli.console import names_of, out, words_of
from clsim.errors import InputError, nearest
from clsim.spec import registry
from clsim.spec.options import options_of


def check(
    name: Annotated[
        str,
        typer.Argument(
            help="The component: ./file.py:attr, module:attr, or a shipped name.",
            autocompletion=names_of("selectors", "acquisitions", "condensers", "learners", "objectives"),
        ),
    ],
    kind: Annotated[
        str,
        typer.Option(
            help="Kind of the component: selectors, acquisitions, condensers, learners, objectives or metrics.",
            autocompletion=words_of(["selectors", "acquisitions", "condensers", "learners", "objectives", "metrics"]),
        ),
    ] = "selectors",
    acquisition: Annotated[
        bool, typer.Option("--acquisition", help="Require that a selector does not read the labels of its candidates.")
    ] = False,
    shortfall: Annotated[
        bool, typer.Option("--shortfall", help="Allow a selector to return fewer rows than the budget.")
    ] = False,
) -> None:
    """Check that a component of your own keeps the contract; name the promise that it breaks."""
    from clsim.checks import acquisitions, condensers, formulas, learners, samples, selectors

    kinds: dict[str, Any] = {
        "selectors": selectors.check_selector,
        "acquisitions": acquisitions.check_acquisition,
        "condensers": condensers.check_condenser,
        "learners": learners.check_learner,
        "objectives": learners.check_objective,
        "metrics": formulas.check_metric,
    }
    if kind not in kinds:
        raise InputError(f"--kind: found {kind!r}; {nearest(kind, kinds)}")
    if kind != "selectors" and (acquisition or shortfall):
        raise InputError(f"check: found --acquisition or --shortfall with {kind}, allowed: with selectors")
    promises = {"reads_labels": not acquisition, "shortfall": shortfall} if kind == "selectors" else {}
    component = registry.component(kind, name)
    if kind == "condensers" and "iterations" in options_of(component):
        component = registry.component(kind, name, {"iterations": 1})  # one iteration shows any broken promise
    try:
        kinds[kind](component, **promises)
        if acquisition:
            selectors.check_labelling(component, shortfall=shortfall)
    except samples.CheckFailed as failure:
        raise InputError(f"{name}: {failure}") from failure
    blind = ", and reads no labels" if acquisition else ""
    out.say(f"{name}: keeps the contract{blind}")
