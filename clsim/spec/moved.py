"""Where the modules of clsim 0.1.0 are now, for files and specs that still name their old places.

All names are without the ``clsim.`` in front.
"""

from __future__ import annotations

import ast
import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import clsim

MODULES = {
    "bridge": "interop.avalanche",
    "catalog": "spec.registry",
    "checks.comparing": "checks.nan_wins",
    "checks.semi": "checks.hidden_labels",
    "cli": "cli.main",
    "commands": "cli.console",
    "commands.condense": "cli.condense",
    "commands.live": "cli.live",
    "commands.look": "cli.list",
    "commands.report": "cli.report",
    "commands.run": "cli.run",
    "commands.select": "cli.select",
    "commands.study": "cli.study",
    "components": "spec.components",
    "condense": "execution.condense",
    "condensers.comparing": "condensers.gradient_distance",
    "condensers.evaluation": "condensers.judging",
    "condensers.matching": "condensers.gradient_matching",
    "condensers.nets": "condensers.drawn",
    "condensers.training": "condensers.inner_steps",
    "controller": "training.controller",
    "cost": "pool.pool",
    "data.augment": "data.augmentation",
    "data.sources": "data.origins",
    "divide": "streams.build",
    "docstrings": "spec.registry",
    "doctor": "cli.doctor",
    "drafts": "pool.contracts",
    "dropout": "pool.dropout",
    "engines": "execution.engines.engine",
    "engines.local": "execution.engines.local",
    "engines.ray": "execution.engines.ray",
    "engines.slurm": "execution.engines.slurm",
    "evaluation": "training.evaluation",
    "exemplars": "pool.exemplars",
    "gates": "learners.isolation.gates",
    "gradients": "pool.gradients",
    "grid": "execution.plan",
    "keeping": "spec.tables",
    "labelling": "spec.tables",
    "labels": "streams.labels",
    "learners": "training.contract",
    "learners.ace": "learners.replay.er_ace",
    "learners.bic": "learners.replay.bic",
    "learners.ccic": "learners.semi.ccic",
    "learners.comatch": "learners.semi.comatch",
    "learners.dark": "learners.replay.der",
    "learners.distilling": "learners.regularisation.distilling",
    "learners.gdumb": "learners.replay.gdumb",
    "learners.hat": "learners.isolation.hat",
    "learners.icarl": "learners.replay.icarl",
    "learners.imm": "learners.regularisation.imm",
    "learners.labelled": "learners.semi.labelled",
    "learners.lfl": "learners.regularisation.lfl",
    "learners.mixing": "learners.semi.mixing",
    "learners.nearest": "training.neighbours",
    "learners.neighbours": "learners.semi.paws",
    "learners.packnet": "learners.isolation.packnet",
    "learners.penalties": "learners.regularisation.penalties",
    "learners.projected": "learners.replay.gem",
    "learners.projection": "learners.semi.heads",
    "learners.protection": "learners.isolation.protection",
    "learners.pseudolabels": "learners.semi.pseudolabels",
    "learners.rwalk": "learners.regularisation.rwalk",
    "learners.separated": "learners.replay.ss_il",
    "learners.si": "learners.regularisation.si",
    "learners.unlabelled": "learners.semi.unlabelled",
    "learners.walking": "learners.regularisation.walking",
    "loop": "training.loop",
    "machine": "training.machine",
    "memory": "memory.buffer",
    "metrics": "records.metrics",
    "models": "models.nets",
    "objectives.dark": "objectives.dark_experience",
    "objectives.neighbours": "objectives.soft_neighbours",
    "objectives.separated": "objectives.separated_softmax",
    "optimizers": "models.optimizers",
    "parts": "streams.part",
    "picks": "execution.select",
    "plateau": "models.optimizers",
    "pool": "pool.pool",
    "progress": "training.progress",
    "proxy": "pool.proxy",
    "pseudo": "training.offered",
    "readouts": "training.evaluation",
    "reporting.contents": "reporting.held",
    "reporting.series": "reporting.curves",
    "reporting.tables": "reporting.grids",
    "resolve": "spec.resolve",
    "results": "training.record",
    "scorers": "pool.scoring",
    "selectors.matching": "selectors.grad_match",
    "selectors.neighbours": "selectors.distances",
    "snapshots": "training.checkpoint",
    "specs": "spec.run",
    "starts": "memory.initial",
    "storage": "training.checkpoint",
    "store": "records.store",
    "streams": "streams.stream",
    "strict": "spec.reader",
    "supervise": "execution.study",
    "tables": "spec.tables",
    "traces": "records.search",
    "tradeoff": "training.stability_decay",
}
"""Old module → the module that holds most of it now. Some old names are names of packages today."""

NAMES = {
    "tradeoff.ControllerSpec": "spec.tables",
    "tradeoff.Phase": "records.search",
    "tradeoff.Decision": "records.search",
    "tradeoff.Values": "records.search",
    "tradeoff.Trial": "records.search",
    "tradeoff.Attempt": "records.search",
    "tradeoff.Search": "records.search",
    "tradeoff.read_search": "records.search",
    "memory.chosen": "pool.contracts",
    "drafts.Draft": "pool.draft",
    "drafts.Watch": "pool.draft",
    "data.datasets.DATASETS": "spec.sources",
    "data.datasets.OWN": "spec.sources",
    "data.datasets.digest": "spec.sources",
    "data.datasets.file_digest": "spec.sources",
    "reporting.report.COSTS": "records.frame",
    "reporting.report.NAMES": "records.frame",
    "reporting.report.frame": "records.frame",
    "reporting.report.memory_size": "spec.naming",
    "reporting.report.settings": "records.frame",
    "models.slim_resnet18": "models.resnet",
    "models.resnet18": "models.resnet",
    "models.vgg_small": "models.vgg",
    "models.vgg_base": "models.vgg",
    "models.vgg_wide": "models.vgg",
    "models.vgg_deep": "models.vgg",
    "objectives.Batch": "training.contract",
    "objectives.Terms": "training.contract",
    "objectives.Objective": "training.contract",
    "objectives.Stateless": "training.contract",
    "objectives.neighbours.smoothed": "training.neighbours",
    "objectives.neighbours.posterior": "training.neighbours",
    "api.execute": "execution.execute",
    "loop.assemble": "training.assemble",
    "store.write": "records.atomic",
    "commands.look.doctor": "cli.doctor",
    "checks.check_selector": "checks.selectors",
    "checks.check_condenser": "checks.condensers",
    "checks.check_learner": "checks.learners",
}
"""Names that did not move with the rest of their module → the module that defines them now."""


def advice(module: str, names: Sequence[str] = ()) -> str:
    """Say in one line what to write in place of an import from an old place; empty if nothing has moved.

    Args:
        module: the module's name as it was imported, with the ``clsim.`` in front.
        names: the names that were imported from it.

    >>> advice("clsim.exemplars", ["Exemplars"])
    'clsim.exemplars has moved: import Exemplars from clsim (its place is clsim.pool.exemplars)'
    >>> advice("clsim.learners", ["Setup"])
    'clsim.learners has moved: import Setup from clsim (its place is clsim.training.contract)'
    >>> advice("clsim.store")
    'clsim.store has moved to clsim.records.store'
    """
    package, _, old = module.partition(".")
    if package != "clsim":
        return ""
    for name in names:  # a module may be imported as a name of its package
        inner = f"{old}.{name}".lstrip(".")
        if inner in MODULES:
            return f"clsim.{inner} has moved to clsim.{MODULES[inner]}"
    places = {name: NAMES.get(f"{old}.{name}", MODULES.get(old, "")) for name in names}
    found = [_import(name, place) for name, place in places.items() if place and _defines(place, name)]
    if found:
        return f"{module} has moved: import {', '.join(found)}"
    return f"{module} has moved to clsim.{MODULES[old]}" if old in MODULES else ""


def advice_on(error: BaseException) -> str:
    """Say what to write in place of the import that failed; empty if an old place is not the reason."""
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        return advice(error.obj.__name__, [error.name or ""])
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_file()]
    ours = (Path(__file__).parent, Path(clsim.__file__).parent)  # what carries out the import
    frames = [f for f in frames if Path(f.filename).parent not in ours]
    if not isinstance(error, ImportError) or not frames:
        return ""
    at, text = frames[-1].lineno or 0, Path(frames[-1].filename).read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and node.lineno <= at <= (node.end_lineno or at):
            named = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                return advice(node.module or "", named)
            return next(filter(None, map(advice, named)), "")
    return ""


def _import(name: str, place: str) -> str:
    if name in clsim.__all__:
        return f"{name} from clsim (its place is clsim.{place})"
    return f"{name} from clsim.{place}"


def _defines(place: str, name: str) -> bool:
    """Whether the text of a module defines a class, a function or a constant of this name; nothing is imported."""
    path = Path(__file__).parent.parent.joinpath(*place.split(".")).with_suffix(".py")
    made = rf"^(?:(?:class|def) {re.escape(name)}\b|{re.escape(name)}(?:: .*)? = )"
    return bool(re.search(made, path.read_text(encoding="utf-8"), re.MULTILINE))
