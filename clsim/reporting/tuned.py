"""What ``clsim tune`` does, from Python: ``clsim.tune("split-digits", "er", trials=10).values``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsim.execution import tune as execution
from clsim.execution.tune import Tested, Tried, Tuned, TuneSpec
from clsim.records.frame import frame
from clsim.records.store import Store
from clsim.reporting import tuning
from clsim.reporting.over_seeds import Records
from clsim.reporting.terminal import shown
from clsim.spec.flags import as_settings, tables_of

if TYPE_CHECKING:
    import pandas as pd


class Search:
    """A search of hyper-parameters that is done: its trials, its winner, and the tests. Final.

    Attributes:
        found: the search: what was asked for, what was searched, every trial and every test.
    """

    def __init__(self, found: Tuned) -> None:
        self.found = found

    @property
    def trials(self) -> tuple[Tried, ...]:
        """The trials, in order; the first has the method's own settings."""
        return self.found.trials

    @property
    def values(self) -> dict[str, Any]:
        """What the best trial sets, ``table.key`` → value, as ``settings`` of :func:`clsim.run` takes it."""
        return dict(self.found.best.values)

    @property
    def command(self) -> str:
        """The command that makes the first test of the winner; empty without tests."""
        return self.found.winner.command

    @property
    def default(self) -> Records:
        """The tests of the method's own settings, a record for each seed."""
        return Records(self.found.default.records)

    @property
    def winner(self) -> Records:
        """The tests of the best trial, a record for each seed; those of ``default`` where trial 0 is the best."""
        return Records(self.found.winner.records)

    @property
    def verdict(self) -> str:
        """What the search gained, in a sentence."""
        return tuning.verdict(self.found)

    @property
    def cost(self) -> dict[str, dict[str, float]]:
        """What the runs of the search took, and those of the tests; see :func:`clsim.reporting.tuning.cost`."""
        return tuning.cost(self.found)

    def frame(self) -> pd.DataFrame:
        """Return a table with a row for each trial.

        Its columns: ``trial``; each key that was searched; ``accuracy``, the mean over the trial's seeds on what was
        held out, a share of 1 and NaN where the trial was refused; ``diverged``; ``repeats``, the trial whose runs
        these are; and ``refused``, why.
        """
        import pandas as pd

        rows = [
            {"trial": one.number, **self.found.own, **one.values}
            | {"accuracy": one.value if one.records else float("nan"), "diverged": one.diverged}
            | {"repeats": one.repeated, "refused": one.refused}
            for one in self.trials
        ]
        return pd.DataFrame(rows).astype({"repeats": "Int64"})

    def tests(self) -> pd.DataFrame:
        """Return a table with a row for each test, as :meth:`clsim.reporting.over_seeds.Records.frame`, and ``arm``."""
        import pandas as pd

        return pd.concat([_with_arm("default", self.found.default), _with_arm("winner", self.found.winner)])

    def __repr__(self) -> str:
        spec, best = self.found.spec, self.found.best
        said = tuning.settings(best.values, dict.fromkeys(best.values)) or "its own settings"
        words = f"{spec.strategy} on {spec.scenario}: trial {best.number} of {len(self.trials)}, {said}"
        return f"<Search of {words}; {100 * best.value:.2f} % of held-out samples>"

    def _repr_html_(self) -> str:
        import html

        return f"<div><strong>{html.escape(repr(self)[1:-1])}</strong>{self.frame().to_html(index=False)}</div>"


def tune(
    scenario: str = "split-digits",
    strategy: str = "er",
    *,
    trials: int = 20,
    search: Mapping[str, str | Sequence[Any]] | Sequence[str] = (),
    experiences: int = execution.FIRST,
    validation: float | None = None,
    seed: int = 0,
    trial_seeds: int = 1,
    test_seeds: int = 5,
    buffer: str | None = None,
    memory: int | str | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    device: str | None = None,
    precision: str | None = None,
    threads: int | str | None = None,
    runs: str | Path = "runs",
    data_root: str | Path | None = None,
    fresh: bool = False,
    tried: Callable[[Tried], None] | None = None,
    progress: Any = "auto",
) -> Search:
    """Search hyper-parameters without test data, on the first experiences; then test default and winner.

    The trials are ordinary runs: a call that was stopped goes on, and one that was made before reads its records.

    Args:
        scenario, strategy: names or paths of TOML files, as for :func:`clsim.run`.
        trials: number of trials, the method's own settings among them.
        search: what is searched: texts ``table.key=LOW..HIGH``, with ``:log`` behind it for rates, or
            ``table.key=VALUE,VALUE``, as ``--search`` takes them; or ``table.key`` → ``"LOW..HIGH"`` or a list of
            values. Empty: learning rate, weight decay, and the learner's own options that are numbers with a fraction.
        experiences: experiences of a trial, the first ones of the stream; 0: all.
        validation: share of each experience that a trial holds out and is measured on; None: the scenario's, else 0.1.
        seed: first seed of the trials, and that of the search.
        trial_seeds: seeds of each trial, whose mean counts.
        test_seeds: seeds on which default and winner are tested, those behind the seeds of the trials; 0: no test.
        buffer, memory: as for :func:`clsim.run`.
        settings: keys of trials and tests, as for :func:`clsim.run`.
        device, precision, threads: those of ``[training]``; None: the scenario's.
        runs: the folder of all runs.
        data_root: folder of the data sets; by default ``$CLSIM_DATA``, else ``~/.cache/clsim``.
        fresh: whether to run anew even if there are records.
        tried: takes each trial once it is done.
        progress: as for :func:`clsim.run`.

    Raises:
        InputError: if an argument is wrong, or Optuna is not installed.
    """
    execution.require_optuna()
    texts = search if not isinstance(search, Mapping) else [f"{key}={_text(of)}" for key, of in search.items()]
    flags = tables_of(buffer=buffer, memory=memory, device=device, precision=precision, threads=threads)
    spec = TuneSpec(
        scenario=scenario,
        strategy=strategy,
        flags=flags,
        settings=tuple(as_settings(settings)),
        axes=tuple(execution.asked_axis(text) for text in texts),
        trials=trials,
        experiences=experiences,
        validation=validation,
        seed=seed,
        seeds=trial_seeds,
        test_seeds=test_seeds,
    )
    how: dict[str, Any] = {} if tried is None else {"tried": tried}
    found = execution.tune(spec, Store(Path(runs)), data_root=data_root, fresh=fresh, watch=shown(progress), **how)
    return Search(found)


def _text(given: Any) -> str:
    """Write a range or a list of values as ``--search`` takes it."""
    if isinstance(given, str):
        return given
    return ",".join(text.partition("=")[2] for text in as_settings({f"a.{i}": one for i, one in enumerate(given)}))


def _with_arm(name: str, arm: Tested) -> pd.DataFrame:
    table = frame([record.data for record in arm.records])
    table.insert(0, "arm", name)
    return table
