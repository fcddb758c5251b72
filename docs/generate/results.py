"""The pages of results: one for each CSV in reports/results, an index, all published rows, and the badge."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from clsim.records.frame import COSTS
from clsim.records.metrics import ALL
from clsim.reporting import claims
from clsim.reporting.cells import Cell, Key, cells, natural
from clsim.reporting.formats import escaped, to_markdown
from clsim.reporting.grids import tables
from clsim.reporting.listing import Line, Listing, of_table
from clsim.reporting.names import printable
from clsim.reporting.report import Published, find_report, groups
from clsim.reporting.runs import commands as merged
from clsim.reporting.statistics import FEWEST
from clsim.spec import registry
from docs.generate import papers
from docs.generate.studies import Study, read_studies, without_seed
from docs.generate.text import save, table, wide_table
from docs.generate.verified import Runs, Verdict, judge, methods

EARLY = "These runs were made before commits were recorded: which state of the code made them is not known."

VERIFIED = (
    "[Verified](../explanation/verified.md): the paper's setting, at least three seeds, the published number inside "
    "our 95 % interval or exceeded, and the state of the code known."
)

UNITS = {"steps_per_second": "steps a second", "replayed_per_second": "steps a second, recorded and replayed"}
UNITS |= {"seconds": "seconds", "bytes": "bytes", "ratio": "ratio"}


def write(results: Path, target: Path) -> list[Verdict]:
    """Write all pages of results.

    Args:
        results: the folder of the CSVs.
        target: the folder of the pages; pages that are no longer made are removed.
    """
    studies = read_studies(results)
    found = {study.name: verdicts(study) for study in studies}
    rows = every_published(studies, found)
    pages = {f"{study.name}.md": page(study, found[study.name], target) for study in studies}
    pages |= {"index.md": index(studies, found, rows), "published.md": published_page(rows), "papers.md": papers.page()}
    save(target, pages | {"badge.svg": badge(*methods([verdict for verdict, _ in rows]))})
    return [verdict for verdict, _ in rows]


def verdicts(study: Study) -> list[Verdict]:
    """Judge every published number that some runs of a study stand beside."""
    spec = study.report
    if spec is None:
        return []
    row_names, chosen = groups(spec, study.runs)
    made = []
    for metric in spec.metrics:
        ours = cells(spec, metric, row_names, chosen)
        for published in spec.published:
            if metric not in published.percent:
                continue
            column = tuple(str(published.at.get(name, "–")) for name in spec.columns)
            wanted = tuple(str(published.at.get(name, "–")) for name in row_names)
            for key, of in ours.items():
                cell = of.get(column, Cell())
                if cell.values and all(text in ("–", key[i]) for i, text in enumerate(wanted)):
                    verdict = judge(published, metric, (*key, *column), cell, _behind(study, cell))
                    made.append(replace(verdict, study=study.name))
    return made


def _behind(study: Study, cell: Cell) -> Runs:
    places = [int(run) for run in cell.runs]
    every, codes = study.commands, study.codes
    return Runs(tuple(every[i] for i in places if every[i]), tuple(codes[i] for i in places))


def every_published(studies: Sequence[Study], found: dict[str, list[Verdict]]) -> list[tuple[Verdict, Study | None]]:
    """List every published number of all shipped reports once, with our runs beside it where there are some."""
    made: list[tuple[Verdict, Study | None]] = []
    beside = [(verdict, study) for study in studies for verdict in found[study.name]]
    seen: list[Published] = []
    for name in registry.file_names("reports"):
        for published in find_report(name).published:
            if published in seen:
                continue
            seen.append(published)
            for metric in published.percent or ["over_labels"]:
                ours = [(v, s) for v, s in beside if v.published == published and v.metric == metric]
                made += ours or [(Verdict(published, metric), None)]
    return made


def page(study: Study, judged: Sequence[Verdict], target: Path) -> str:
    """Write the page of a study."""
    parts = [f"# {escaped(study.title)}", _facts(study, judged)]
    if any(code is None for code in study.codes):
        parts.append(f":::{{note}}\n{EARLY}\n:::" if not any(study.codes) else f":::{{note}}\nIn part: {EARLY}\n:::")
    notes = target / "notes" / f"{study.name}.md"
    if notes.is_file():
        parts.append(f"```{{include}} notes/{notes.name}\n```")
    if said := study.about.get("description", ""):
        parts.append(f"## Setting, and how it deviates from the paper\n\n{_prose(said)}")
    if study.report is not None and study.report.description:
        parts.append(("" if said else "## Setting\n\n") + f"Of the report: {_prose(study.report.description)}")
    parts += _published(study, judged)
    parts += _claims(study)
    parts.append("## Results\n\n" + "\n\n".join(to_markdown(listing) for listing in _tables(study)))
    for figure in study.figures:
        words = figure.stem.removeprefix(study.name).strip("-").replace("-", " ") or "figure"
        parts.append(f"![{escaped(study.title)}: {escaped(words)}](../../reports/results/{figure.name})")
    parts.append("## How to make it again\n\n" + _commands(study))
    return "\n\n".join(parts) + "\n"


def _facts(study: Study, judged: Sequence[Verdict]) -> str:
    """Write number of runs, seeds, date, code and processors, and whether something is verified."""
    rows = study.rows
    codes = sorted({code for code in study.codes if code})
    facts = [("Runs", str(len(rows)))] + ([("Seeds", str(study.seeds))] if study.seeds else [])
    facts += [("Table last changed", study.date)] if study.date else []
    if "version" in rows and "version" not in study.labels:
        facts.append(("clsim", ", ".join(sorted({str(value) for value in rows["version"]}))))
    facts.append(("State of the code", "; ".join(codes) if codes else "not recorded"))
    if "processor" in rows:
        facts.append(("Processor", "; ".join(sorted({str(value) for value in rows["processor"].dropna()}))))
    facts.append(("Verified", verified_words(judged)))
    lines = [f"| {name} | {escaped(value)} |" for name, value in facts]
    return ":::{div} facts\n| | |\n| --- | --- |\n" + "\n".join(lines) + "\n:::"


def verified_words(judged: Sequence[Verdict]) -> str:
    """Say how many of the published numbers beside these runs are verified."""
    if not judged:
        return "no published number stands beside these runs"
    number = sum(verdict.verified for verdict in judged)
    return f"{number} of {len(judged)} published number{'s' * (len(judged) > 1)}"


def _tables(study: Study) -> list[Listing]:
    """Make the tables: those of the report, or, without one, a column for each number that was measured."""
    if study.report is not None:
        said: set[str] = set()
        made = []
        for listing in map(of_table, tables(study.report, study.runs)):
            made.append(replace(listing, notes=[note for note in listing.notes if note not in said]))
            said |= {*listing.notes}
        return made
    names, groups_ = study.labels, _groups(study)
    options = _told_apart([key for key, _ in groups_])
    lines = []
    for (key, command), rows in groups_:
        found = [_scaled(name, rows[name].dropna().astype(float)) for name in study.numbers]
        entries = [_measured(values) if "unit" in rows else _entry(values) for values in found]
        lines.append(Line([*key, *options[key, command]], entries))
    several = any(len(rows) >= FEWEST for _, rows in groups_)
    note = "Mean ± half of the 95 % t interval over seeds; the values themselves below three." if several else ""
    heads = [(_heading(name),) for name in study.numbers]
    labels = [name.replace("_", " ") for name in names] + (["options"] if any(options.values()) else [])
    return [Listing("All rows", labels, heads, lines, [note] if note else [])]


def _groups(study: Study) -> list[tuple[tuple[Key, str], object]]:
    """Group the rows of a file that no report made: by their labels, and by the command without its seed."""
    keys = [tuple("–" if v != v else str(v) for v in row) for row in study.rows[study.labels].itertuples(index=False)]
    both = list(zip(keys, map(without_seed, study.commands), strict=True))
    first = dict.fromkeys(both)
    places = {key: [i for i, other in enumerate(both) if other == key] for key in first}
    return [(key, study.rows.iloc[places[key]]) for key in sorted(first, key=lambda key: natural([*key[0], key[1]]))]


def _told_apart(keys: Sequence[tuple[Key, str]]) -> dict[tuple[Key, str], list[str]]:
    """Write the options in which commands of equal labels differ; nothing where no labels are equal."""
    labels = [key for key, _ in keys]
    if len(set(labels)) == len(labels):
        return {key: [] for key in keys}
    made = {}
    for key, command in keys:
        others = [_options(other) for label, other in keys if label == key]
        common = set.intersection(*map(set, others))
        made[key, command] = [" ".join(option for option in _options(command) if option not in common) or "–"]
    return made


def _options(command: str) -> list[str]:
    """Split a command into its flags, each with its value."""
    return [re.sub(r"^--(option |set )?", "", text).strip() for text in re.findall(r"--\S+(?: [^-\s]\S*)?", command)]


def _scaled(name: str, values: Iterable[float]) -> list[float]:
    return [100 * value if name in ALL and ALL[name].percent else value for value in values]


def _entry(values: Sequence[float]) -> str:
    """Write the mean of values with its interval; a value that does not vary stands alone."""
    return str(Cell(tuple(values) if len({*values}) > 1 else tuple(values[:1])))


def _measured(values: Sequence[float]) -> str:
    """Write what a benchmark measured once, whose rows have units of their own, with the digits of its file.

    >>> _measured([0.8623]), _measured([31320.0]), _measured([])
    ('0.8623', '31,320', '–')
    """
    return ", ".join(f"{value:,.4f}".rstrip("0").rstrip(".") for value in values) or "–"


def _heading(name: str) -> str:
    if name in ALL:
        return ALL[name].heading
    return COSTS.get(name) or UNITS.get(name, name.replace("_", " "))


def _published(study: Study, judged: Sequence[Verdict]) -> list[str]:
    """Write our numbers beside the published ones, and how many have no run beside them."""
    spec = study.report
    if spec is None or not spec.published:
        return []
    parts = ["## Beside what was published"]
    if judged:
        parts += [_beside([(v, None) for v in judged]), VERIFIED]
    left = len([p for p in spec.published if not any(v.published == p for v in judged)])
    if left:
        words = "row" if left == 1 else "rows"
        none = "No" if not judged else "No further"
        parts.append(
            f"{none} run of ours stands in the setting of the {'other ' if judged else ''}{left} published {words} "
            f"that the report `{study.report_name}` holds; they are among [all published rows](published.md)."
        )
    return parts


def _beside(rows: Sequence[tuple[Verdict, Study | None]]) -> str:
    """Write published numbers beside ours, and their sources; the study is linked where it is given."""
    sources = list(dict.fromkeys(v.published.source for v, _ in rows))
    ours, studies = any(v.cell.values for v, _ in rows), any(study for _, study in rows)
    heads = ["row", "metric, %", "published"] + (["ours", "the paper's is", "verified"] if ours else [])
    lines = []
    for verdict, study in rows:
        at = " · ".join(str(value) for value in verdict.published.at.values())
        number = sources.index(verdict.published.source) + 1
        line = [escaped(at), _metric(verdict), f"{_paper(verdict)} \\[{number}\\]"]
        line += [str(verdict.cell), verdict.agreement, escaped(_said(verdict))] if ours else []
        lines.append(line + ([f"[{study.name}]({study.name}.md)" if study else "–"] if studies else []))
    notes = "\n".join(f"- \\[{i}\\] {escaped(source)}" for i, source in enumerate(sources, 1))
    return f":::{{div}} beside\n{table(heads + (['study'] if studies else []), lines)}\n:::\n\n{notes}"


def _metric(verdict: Verdict) -> str:
    return "accuracy over labels" if verdict.metric == "over_labels" else ALL[verdict.metric].label


def _paper(verdict: Verdict) -> str:
    published = verdict.published
    if verdict.metric == "over_labels":
        return ", ".join(f"{value:g} at {int(number):,}" for number, value in published.over_labels.items())
    seeds = f", {published.seeds} seeds" if published.seeds else ""
    return f"{Cell(published=published.percent[verdict.metric])}{seeds}"


def _said(verdict: Verdict) -> str:
    if verdict.verified:
        return f"yes, with code {', '.join(verdict.code)}"
    return "no: " + "; ".join(verdict.against)


def _claims(study: Study) -> list[str]:
    """Judge the claims of a report that its CSV suffices for, and name the others."""
    spec = study.report
    if spec is None or not spec.claims:
        return []
    here = replace(spec, claims=tuple(c for c in spec.claims if c.measure not in claims.OF_CURVES))
    parts = ["## Claims, judged"]
    if here.claims:
        parts += [to_markdown(one) for one in claims.listed(claims.judge(here, study.runs, []), spec.size)]
    if left := [claim.text for claim in spec.claims if claim.measure in claims.OF_CURVES]:
        points = "\n".join(f"- {escaped(text)}" for text in left)
        parts.append(f"Judged by `clsim report {study.report_name}` on the runs alone, since the CSV has no curves:")
        parts.append(points)
    return parts


def _commands(study: Study) -> str:
    """Write the commands of the comment lines, the CSV, and the commands of all runs."""
    lines = [printable(line) for line in study.comments]
    shell = [line for line in lines if re.match(r"(clsim|python|for|OMP_NUM_THREADS=\S+) ", line)]
    said = [line for line in lines if line not in shell]
    parts = [f"{escaped(line)}" for line in said]
    if shell:
        parts.append("```sh\n" + "\n".join(shell) + "\n```")
    parts.append(f"Every run: {{download}}`{study.path.name} <../../reports/results/{study.path.name}>`")
    if every := merged(_seed_last(command) for command in study.commands):
        fence = "`" * max(3, *(len(found) + 1 for found in re.findall("`+", "\n".join(every))), 3)
        code = "\n".join(printable(line) for line in every)
        parts.append(f":::{{dropdown}} The commands of all {len(study.rows)} runs\n{fence}sh\n{code}\n{fence}\n:::")
    return "\n\n".join(parts)


def _seed_last(command: str) -> str:
    """Put the seed of a command behind all else."""
    found = re.search(r" --seed \d+\b", command)
    return without_seed(command) + found[0] if found else command


def _prose(text: str) -> str:
    """Write the prose of a TOML file as markdown; indented lines are code."""
    blocks: list[tuple[bool, list[str]]] = []
    for line in text.strip().splitlines():
        code = line.startswith("    ")
        if not blocks or blocks[-1][0] != code:
            blocks.append((code, []))
        blocks[-1][1].append(printable(line[4:]) if code else escaped(line))
    return "\n\n".join("```text\n" + "\n".join(lines) + "\n```" if code else "\n".join(lines) for code, lines in blocks)


def index(
    studies: Sequence[Study], found: dict[str, list[Verdict]], rows: Sequence[tuple[Verdict, Study | None]]
) -> str:
    """Write the index: all studies, with runs, seeds, date, and what is verified."""
    number, every = methods([verdict for verdict, _ in rows])
    beside = len({verdict.method for verdict, study in rows if study is not None})
    lines = [
        "# Results",
        f"```{{image}} badge.svg\n:alt: methods verified: {number} of {every}\n:class: badge\n```",
        "Each page is generated from the rows in `reports/results`, with the report that the CSV names: our mean "
        "with the 95 % interval over seeds, the published numbers that are known, the commands, and how the setting "
        "deviates.",
        f"**[Verified](../explanation/verified.md)** means: the paper's setting, at least three seeds, the published "
        "number inside our interval or exceeded, and the state of the code known. Where a machine cannot tell whether "
        f"a setting is the paper's, nothing is verified. Of {every} methods the reports hold a published row; runs of "
        f"ours stand beside {beside} of them, and {number} are verified. [All published rows](published.md), and "
        "[the papers](papers.md), each of which one command reproduces.",
        wide_table(
            ["study", "what was run", "runs", "seeds", "verified", "code recorded", "last changed"],
            (
                [
                    f"[{study.name}]({study.name}.md)",
                    escaped(study.title),
                    str(len(study.rows)),
                    str(study.seeds or "–"),
                    _short(found[study.name]),
                    _recorded(study),
                    study.date or "–",
                ]
                for study in studies
            ),
        ),
        "```{toctree}\n:hidden:\n:maxdepth: 1\n\nPapers <papers>\nAll published rows <published>\n"
        + "\n".join(f"{study.name} <{study.name}>" for study in studies)
        + "\n```",
    ]
    return "\n\n".join(lines) + "\n"


def _recorded(study: Study) -> str:
    known = [code is not None for code in study.codes]
    return "yes" if all(known) else "in part" if any(known) else "no"


def _short(judged: Sequence[Verdict]) -> str:
    if not judged:
        return "–"
    return f"{sum(verdict.verified for verdict in judged)} of {len(judged)} numbers"


def published_page(rows: Sequence[tuple[Verdict, Study | None]]) -> str:
    """Write the page of all published rows, those with runs of ours first."""
    ran, others = ([row for row in rows if (row[1] is None) == without] for without in (False, True))
    parts = ["# All published rows", "Every row of a paper that a shipped report holds.", VERIFIED]
    parts += ["## With runs of ours", _beside(ran)] if ran else []
    none = "Most are of a size that takes a GPU."
    parts += ["## Without a run of ours", none, _beside(others)] if others else []
    return "\n\n".join(parts) + "\n"


def badge(number: int, every: int) -> str:
    """Draw the badge: how many methods are verified, of those that have a published row."""
    words, value = "methods verified", f"{number} of {every}"
    left, right = 7 * len(words) + 12, 7 * len(value) + 14
    colour = "#2f7d4f" if number else "#6b7280"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
        f'aria-label="{words}: {value}"><title>{words}: {value}</title>'
        f'<rect width="{left + right}" height="20" rx="3" fill="#3f4650"/>'
        f'<path d="M{left} 0h{right - 3}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{right - 3}z" fill="{colour}"/>'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="{left / 2}" y="14">{words}</text><text x="{left + right / 2}" y="14">{value}</text></g></svg>\n'
    )
