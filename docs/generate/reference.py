"""The pages of the reference: an entry for each name that clsim knows, the tables of a spec, the commands, the API."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import typer

import clsim
from clsim.cli.main import app
from clsim.execution.plan import StudySpec
from clsim.reporting.report import Claim, Published, ReportSpec
from clsim.spec.described import KINDS, Description, describe, names
from clsim.spec.docstrings import parsed
from clsim.spec.option_lines import Option
from docs.generate.text import anchor, fenced, inline, prose, save, sentence, table, wide_table

ROOT = Path(__file__).resolve().parents[2]

TITLES = {
    "scenarios": "Scenarios",
    "strategies": "Strategies",
    "reports": "Reports",
    "studies": "Studies",
    "datasets": "Data sets",
    "selectors": "Selectors",
    "combinators": "Combinators",
    "acquisitions": "Acquisitions",
    "bounds": "Bounds",
    "pruners": "Pruners",
    "condensers": "Condensers",
    "objectives": "Objectives",
    "learners": "Learners",
    "models": "Models",
    "pools": "Transforms of the pool",
    "optimizers": "Optimizers",
    "metrics": "Metrics",
    "tables": "The tables of a spec",
}

SAYS = {
    "scenarios": "A scenario says which data set becomes which stream, with which model and training. Use one with "
    "`clsim run --scenario NAME`; a file of your own in `./scenarios` is found by its name.",
    "strategies": "A strategy says who learns, with the hyper-parameters of its paper. Use one with "
    "`clsim run --strategy NAME`; `[on.SCENARIO]` tables hold on that scenario alone.",
    "reports": "A report says which runs stand in which rows and columns. Use one with `clsim report NAME`.",
    "studies": "A study is a grid of runs. Use one with `clsim study NAME`; `--dry-run` prints its plan.",
    "datasets": "Data sets are read from `--data-root`, else `$CLSIM_DATA`, else `~/.cache/clsim`. Use one with "
    "`--set data.dataset=NAME`.",
    "selectors": "A selector chooses a few samples out of many: what to keep (`--buffer NAME`), what to ask labels for "
    "(`--label NAME`), what to train on now (`--batch NAME`), what to replay (`--set memory.retrieval=NAME`), or only "
    "the indices (`clsim select --selector NAME`). Options are set by `--set memory.options.NAME=VALUE`.",
    "combinators": "A combinator makes a selector of selectors, as in `--buffer 'prefilter(entropy,kcenter,5)'`.",
    "acquisitions": "An acquisition asks for labels and has a state of its own. Use one with `--label NAME`; options "
    "are set by `--set labelling.options.NAME=VALUE`.",
    "bounds": "A bound chooses labels by reading hidden ones. Every table of its runs says so.",
    "pruners": "A pruner leaves samples out of whole epochs. Use one with `--batch NAME`; options are set by "
    "`--set batch.options.NAME=VALUE`.",
    "condensers": "A condenser fills a memory with samples that it makes. Use one with `--buffer NAME`, or make a set "
    "by `clsim condense --method NAME`.",
    "objectives": "An objective is what a learner minimises. Use one with `--set learner.options.objective=NAME`.",
    "learners": "A learner trains on a stream. Strategies name one; `--set learner.name=NAME` takes another. Options "
    "are set by `--set learner.options.NAME=VALUE`.",
    "models": "Use a model with `--set model.name=NAME`; options are set by `--set model.options.NAME=VALUE`.",
    "pools": "A transform makes the pool of a stream a realistic one. Use one with `--pool NAME` or "
    "`--pool NAME:number`, several in their order; options are set by `--set pool.NAME.OPTION=VALUE`.",
    "optimizers": "Use an optimizer with `--set optimizer.name=NAME`.",
    "metrics": "Metrics are computed from a run's accuracy matrix: R[i, j] is the accuracy on experience j after "
    "experience i. Reports name them under `metrics`.",
    "tables": "Every key of a run's spec, by table, with its default. A scenario or a strategy sets some of them, and "
    "`--set TABLE.KEY=VALUE` any.",
}


KEYS: dict[str, dict[str, type]] = {
    "studies": {"The keys of a study's file": StudySpec},
    "reports": {
        "The keys of a report's file": ReportSpec,
        "The keys of a published row": Published,
        "The keys of a claim": Claim,
    },
}
"""Kind → title → the dataclass whose attributes are the keys of its files."""


def write(target: Path, results: Path) -> None:
    """Write all pages of the reference.

    Args:
        target: the folder of the pages; pages that are no longer made are removed.
        results: the folder of the CSVs, to which entries of studies link.
    """
    shown = {path.stem for path in results.glob("*.csv")}
    pages = {f"{kind}.md": page(kind, shown) for kind in KINDS}
    save(target, pages | {"commands.md": commands(), "api.rst": api(), "index.md": index()})


@cache
def entries(kind: str) -> tuple[Description, ...]:
    """Describe every name of a kind, in the order of the alphabet; tables keep that of a spec."""
    found = names(kind) if kind == "tables" else sorted(names(kind))
    return tuple(describe(kind, name) for name in found)


def index() -> str:
    """Write the index of the reference."""
    rows = [
        [
            f"[{TITLES[kind]}]({kind}.md)",
            str(len(entries(kind))),
            inline(sentence(SAYS[kind].partition(". ")[0])),
        ]
        for kind in KINDS
    ]
    pages = ["commands", "api", *KINDS]
    return "\n\n".join(
        [
            "# Reference",
            "Generated from the code: the same that `clsim list` and `clsim show NAME` print.",
            table(
                ["", ""],
                [
                    ["[Commands](commands.md)", "`clsim` and all that follows it, with every flag."],
                    ["[API](api.rst)", "What `import clsim` gives."],
                ],
            ),
            "## By name",
            table(["kind", "number", "what it is"], rows),
            "```{toctree}\n:hidden:\n:maxdepth: 1\n\n" + "\n".join(pages) + "\n```",
            "",
        ]
    )


def page(kind: str, results: set[str]) -> str:
    """Write the page of a kind: a table of all names, and an entry each."""
    every = entries(kind)
    parts = [f"# {TITLES[kind]}", inline(SAYS[kind])]
    if kind == "tables":
        parts.append("Not in a table: `scenario`, `strategy` and `seed`.")
    else:
        parts.append(_summary(kind, every))
    parts += [keys(title, of) for title, of in KEYS.get(kind, {}).items()]
    parts += [entry(one, results) for one in every]
    return "\n\n".join(parts) + "\n"


def keys(title: str, of: type) -> str:
    """Write the keys of a file, from the attributes of its dataclass: what each says, and its default."""
    says = parsed(inspect.getdoc(of)).args
    lines = []
    for field in dataclasses.fields(of):
        plain = isinstance(field.default, (str, bool, int, float, tuple)) and field.default not in ("", ())
        value = ", ".join(map(str, field.default)) if isinstance(field.default, tuple) else str(field.default)
        ending = f" Default: `{value.lower() if isinstance(field.default, bool) else value}`." if plain else ""
        lines.append(f"`{field.name}`\n: {inline(sentence(says.get(field.name, ''))) or '–'}{ending}")
    return f"## {title}\n\n" + "\n\n".join(lines)


def _summary(kind: str, every: tuple[Description, ...]) -> str:
    needs, labels = any(one.needs for one in every), kind == "selectors"
    heads = ["name", "what it does" if kind == "selectors" else "what it is"]
    heads += (["needs"] if needs else []) + (["can label"] if labels else [])
    rows = []
    for one in every:
        row = [f"[`{one.name}`](#{anchor(kind, one.name)})", inline(one.title)]
        rows.append(
            row + ([inline(one.needs) or "–"] if needs else []) + (["yes" if one.can_label else "no"] if labels else [])
        )
    return wide_table(heads, rows)


def entry(one: Description, results: set[str]) -> str:
    """Write an entry: title, facts, prose, options, an example, the file."""
    link = _links(one)
    heading = f"`[{one.name}]`" if one.kind == "tables" else f"`{one.name}`"
    parts = [f"({anchor(one.kind, one.name)})=\n## {heading}"]
    parts.append(f"**{inline(sentence(one.title))}**" if one.title else "")
    parts.append(prose(one.text, link))
    parts.append(_facts(one, results))
    if one.options:
        parts.append("" if one.kind == "tables" else "Options:")
        parts.append("\n\n".join(option(each, link) for each in one.options))
    if one.example and one.kind != "tables":
        parts.append(fenced(one.example, "sh"))
    if one.tables:
        name = _place(one.place)
        parts.append(f":::{{dropdown}} {inline(f'`{name}`')}\n{fenced(one.tables, 'toml')}\n:::")
    return "\n\n".join(part for part in parts if part)


def _facts(one: Description, results: set[str]) -> str:
    """Write needs, cost, source and what else is known, a line each."""
    label = "" if one.kind != "selectors" else "yes" if one.can_label else "no"
    facts = {
        "Also called": ", ".join(f"`{name}`" for name in one.aliases),
        "Needs": inline(one.needs),
        "Cost": inline(one.cost),
        "Can choose labels": label,
        "Paper": inline(one.source),
        "Uses": ", ".join(f"[`{name}`](#{anchor(kind, name)})" for kind, name in one.parts),
        "Results": _results(one, results),
        "Code": "" if one.tables or one.kind == "tables" or ":" not in one.place else f"`{_place(one.place)}`",
    }
    lines = [f"| {name} | {value} |" for name, value in facts.items() if value]
    return ":::{div} facts\n| | |\n| --- | --- |\n" + "\n".join(lines) + "\n:::" if lines else ""


def _results(one: Description, results: set[str]) -> str:
    return f"[{one.name}](../results/{one.name}.md)" if one.kind == "studies" and one.name in results else ""


def option(one: Option, link: Callable[[str], str]) -> str:
    """Write an option: name, values and default, and what it says."""
    default = f"default `{one.default}`" if one.default else "has no default"
    kind = f"{inline(one.kind)}; " if one.kind else ""
    return f"`{one.name}`: {kind}{default}\n: {inline(sentence(one.says), link) or '–'}"


def _links(one: Description) -> Callable[[str], str]:
    """Return what links a name in an entry to the entry of that name, of the same kind."""
    known = {name for name in names(one.kind) if name != one.name} if one.kind != "tables" else set()
    return lambda name: anchor(one.kind, name) if name in known else ""


def _place(place: str) -> str:
    """Leave out the folder of the checkout, and the line."""
    path = place.partition(":")[0]
    return str(Path(path).relative_to(ROOT)) if Path(path).is_relative_to(ROOT) else path


def commands() -> str:
    """Write the page of the commands, from what the command line itself knows."""
    group = typer.main.get_command(app)
    context = group.make_context("clsim", [], resilient_parsing=True)
    parts = ["# Commands", inline("`clsim COMMAND --help` prints the same.")]
    for command, path in _every(group, context, "clsim"):
        parts.append(f"({anchor('commands', path)})=\n{'###' if path.count(' ') > 1 else '##'} `{path}`")
        parts.append(prose(inspect.cleandoc(command.help or "")))
        shown = [parameter for parameter in command.params if not vars(parameter).get("hidden")]
        options = ["[OPTIONS]"] if any(p.param_type_name == "option" for p in shown) else []
        below = ["COMMAND …"] if isinstance(command, typer.core.TyperGroup) else []
        parts.append(
            fenced(" ".join([path, *options, *(_argument(p) for p in shown if _is_argument(p)), *below]), "text")
        )
        parts += [_flag(parameter) for parameter in shown]
    return "\n\n".join(part for part in parts if part) + "\n"


def _every(command: Any, context: Any, path: str) -> Iterator[tuple[Any, str]]:
    """Yield a command, and all below it, with the words that call them."""
    yield command, path
    if isinstance(command, typer.core.TyperGroup):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _every(inner, context, f"{path} {name}")


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _argument(parameter: Any) -> str:
    name = parameter.name.rstrip("_").upper() + ("…" if parameter.nargs != 1 else "")
    return name if parameter.required else f"[{name}]"


def _flag(parameter: Any) -> str:
    """Write an argument or an option of a command."""
    about = vars(parameter)
    name = parameter.name.rstrip("_").upper()
    takes = "" if about.get("is_flag") or about.get("count") else f" {name}"
    shown = [name] if _is_argument(parameter) else [f"{o}{takes}" for o in (*parameter.opts, *parameter.secondary_opts)]
    default = parameter.default
    known = isinstance(default, (str, int, float, Path)) and not isinstance(default, bool) and str(default) != ""
    ending = f" Default: `{default}`." if known else ""
    said = inline(sentence(about.get("help") or "")) or "–"
    return f"{', '.join(f'`{one}`' for one in shown)}\n: {said}{ending}"


def api() -> str:
    """Write the page of the API: everything of ``clsim.__all__``, by what it is."""
    every = {name: vars(clsim).get(name) or clsim.__getattr__(name) for name in sorted(clsim.__all__, key=str.lower)}
    functions = [name for name, found in every.items() if inspect.isroutine(found)]
    classes = [name for name, found in every.items() if inspect.isclass(found)]
    modules = [name for name, found in every.items() if inspect.ismodule(found)]
    parts = [_titled("API", "="), "Everything here is imported by ``import clsim``; nothing else is public."]
    parts.append(".. currentmodule:: clsim")
    for title, these, directive in (("Functions", functions, "autofunction"), ("Classes", classes, "autoclass")):
        more = "\n   :members:" if these is classes else ""
        parts += [_titled(title, "-"), *(f".. {directive}:: clsim.{name}{more}" for name in these)]
    if others := [name for name in every if name not in {*functions, *classes, *modules}]:
        parts.append(_titled("Types", "-"))  # a type's name has no docstring of its own but that below its definition
        parts += [f".. autodata:: {clsim._PLACES[name]}.{name}\n   :no-value:" for name in others]
    for name in modules:
        inside = [each for each, found in vars(every[name]).items() if inspect.getmodule(found) is every[name]]
        public = [each for each in inside if not each.startswith("_") and inspect.isfunction(vars(every[name])[each])]
        parts += [_titled(f"clsim.{name}", "-"), (inspect.getdoc(every[name]) or "").partition("\n\n")[0]]
        parts += [f".. autofunction:: clsim.{name}.{each}" for each in public]
    return "\n\n".join(parts) + "\n"


def _titled(text: str, mark: str) -> str:
    return f"{text}\n{mark * len(text)}"
