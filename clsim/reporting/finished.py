"""What `clsim run` prints at its end: accuracy and forgetting of each seed, where the runs are, and what they took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from clsim.records.metrics import METRICS, UNSIZED, Metric, by_samples, summary, weights
from clsim.records.own_metrics import of_record
from clsim.records.store import RunRecord
from clsim.reporting.cells import Cell, decimals
from clsim.reporting.screen import Screen, plain
from clsim.spec.naming import batch_words, label_words, memory_size, scenario_name
from clsim.spec.pools import named
from clsim.version import __version__

RUN_METRICS = ("accuracy", "average_incremental_accuracy", "learning_accuracy", "forgetting", "backward_transfer")


def show_finished(records: Sequence[RunRecord], out: Console, metrics: Mapping[str, Metric] | None = None) -> None:
    """Print runs of one spec, and a line for each that says where it is.

    Args:
        records: the records of the runs.
        out: the console.
        metrics: metrics to show besides the usual ones, by name.
    """
    show_runs([record.data for record in records], out, metrics)
    for record in records:
        seconds = [sum(c[f"{part}_seconds"] for c in record.data["cost"]) for part in ("train", "select", "evaluate")]
        line = f"seed {record.data['spec']['seed']}: {record.folder} · {seconds[0]:.1f} s training, "
        out.print(plain(f"{line}{seconds[1]:.1f} s selection, {seconds[2]:.1f} s evaluation", "dim"))
    for record in records:
        missing = record.data.get("labelling", {}).get("without_label", [])
        if any(missing):
            where = ", ".join(f"{n} in experience {i}" for i, n in enumerate(missing, 1) if n)
            line = f"seed {record.data['spec']['seed']}: classes without a label: {where}"
            out.print(plain(line, "yellow"))
        for one in record.data.get("pretraining", ()):
            line = f"seed {record.data['spec']['seed']}, experience {one['experience'] + 1}: {one['use']} by "
            line += f"{one['method']}, {one['model']} on {one['images']} images: {one['steps']} steps, "
            out.print(plain(f"{line}{one['seconds']:.1f} s, kept for other runs", "dim"))
    for record in records:
        for name, line in record.data.get("crowded", {}).items():
            out.print(plain(f"seed {record.data['spec']['seed']}, by {name}: {line}", "yellow"))
    other = {record.data["versions"]["clsim"] for record in records} - {__version__}
    if other:
        out.print(plain(f"made by clsim {', '.join(sorted(other))}, this is {__version__}; --fresh runs it anew"))
    if any(record.data.get("diverged") for record in records):
        out.print("[red]a loss is not finite: the learning rate is too high, or the data is broken")


def show_runs(records: Sequence[Mapping[str, Any]], out: Console, metrics: Mapping[str, Metric] | None = None) -> None:
    """Print a row a seed, and the mean over seeds; a column a seed where the metrics are too many for the terminal.

    See :func:`show_finished`.
    """
    if not out.is_terminal:  # a file or a pipe has no width to fit into
        out = Screen(file=out.file, width=1000, soft_wrap=True, emoji=False)
    metrics = metrics or {}
    spec = records[0]["spec"]
    memory = f", {spec['memory']['buffer']} memory of {memory_size(spec)}"
    if spec["memory"]["buffer"] == "none":
        memory = ", no memory"
    elif spec["memory"]["per"] != "total":
        memory += f" a {spec['memory']['per']}"
    chosen = "".join(f", {words}" for words in (*label_words(spec), *batch_words(spec)))
    pool = "" if (changed := named(spec.get("pool"))) == "–" else f", {changed}"
    held_out = spec.get("evaluation", {}).get("on", "test") != "test"
    measured = ", measured on held-out samples" if held_out else ""
    title = f"{scenario_name(spec)}{pool}: {spec['strategy']}{chosen}{memory}{measured}"
    found = [summary(record["accuracy"], record["initial"], sizes=weights(record)) for record in records]
    shown = [name for name in RUN_METRICS if any(values[name] is not None for values in found)]
    headings = {name: METRICS[name].heading for name in shown}
    for readout in records[0].get("readouts", {}):  # another way to predict: its own accuracy at the end
        for record, values in zip(records, found, strict=True):
            values[readout] = summary(record["readouts"][readout], record["initial"], sizes=weights(record))["accuracy"]
        shown.append(readout)
        headings[readout] = f"accuracy by {readout}, %"
    for name, metric in metrics.items():
        for record, values in zip(records, found, strict=True):
            values[name] = values[name] if name in METRICS else of_record(name, metric, record)
        headings[name] = metric.heading
    shown = list(dict.fromkeys([*shown, *metrics]))
    factors = {name: 1 if name in metrics and not metrics[name].percent else 100 for name in shown}
    columns = {name: [factors[name] * v for values in found if (v := values[name]) is not None] for name in shown}
    digits = {name: 1 if factors[name] == 100 or not columns[name] else decimals(*columns[name]) for name in shown}
    lines = []
    for record, values in zip(records, found, strict=True):
        numbers = {name: None if (v := values[name]) is None else factors[name] * v for name in shown}
        words = ["–" if v is None else f"{v:,.{digits[name]}f}" for name, v in numbers.items()]
        lines.append([str(record["spec"]["seed"]), *words])
    mean = ["mean", *(str(Cell(columns[name])) for name in shown)] if len(records) >= 3 else []
    names = [headings[name] for name in shown]
    rows = Table(title=plain(title), title_justify="left")
    for heading in ("seed", *names):
        rows.add_column(plain(heading), justify="right")
    for line in lines:
        rows.add_row(*line)
    if mean:
        rows.add_section()
        rows.add_row(*mean, style="bold")
    needed = Measurement.get(out, out.options.update(max_width=1000), rows).minimum
    out.print(rows if needed <= out.width else _upright(title, names, lines, mean))
    if len(records) >= 3:
        out.print(Text(f"mean ± half of the 95 % t interval over {len(records)} seeds", style="dim"))
    if any(by_samples(record) and weights(record) is None for record in records):
        out.print(Text(UNSIZED, style="dim"))
    if not any(record.get("searches") for record in records):
        return
    from clsim.reporting import searches  # most runs search nothing

    for record in records:
        if searched := searches.searches(record):
            controller = record["spec"]["controller"]["name"]
            out.print(plain(f"{controller}, seed {record['spec']['seed']}: what was chosen, task by task", "bold"))
            out.print(searches.summary(searched))


def _upright(title: str, names: Sequence[str], lines: Sequence[Sequence[str]], mean: Sequence[str]) -> Table:
    """Make a table with a row a metric and a column a seed."""
    made = Table(title=plain(title), title_justify="left")
    made.add_column("")
    for seed, *_ in lines:
        made.add_column(f"seed {seed}", justify="right")
    if mean:
        made.add_column("mean", justify="right", style="bold")
    for i, name in enumerate(names, 1):
        made.add_row(plain(name), *(line[i] for line in lines), *mean[i : i + 1])
    return made
