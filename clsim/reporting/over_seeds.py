"""The records of one run over several seeds, as ``clsim.run(…, seeds=3)`` returns them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

from clsim import notebook
from clsim.records.frame import frame
from clsim.records.metrics import ALL
from clsim.records.store import RunRecord
from clsim.reporting.cells import Cell
from clsim.spec.naming import title

if TYPE_CHECKING:
    import pandas as pd


class Records(Sequence[RunRecord]):
    """A sequence of records that differ in their seed, with means over the seeds. Final.

    Args:
        records: the records, one for each seed.
    """

    def __init__(self, records: Sequence[RunRecord]) -> None:
        self._records = tuple(records)

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> RunRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> RunRecord | Records:
        return Records(self._records[index]) if isinstance(index, slice) else self._records[index]

    def __iter__(self) -> Iterator[RunRecord]:
        return iter(self._records)

    def frame(self) -> pd.DataFrame:
        """Return a table with a row for each seed: labels, spec values as ``table.key``, metrics, costs."""
        return frame([record.data for record in self._records])

    def means(self) -> pd.DataFrame:
        """Return a row for each metric, in percent: mean, half width of the 95 % t interval (NaN below 3), n."""
        import pandas as pd

        rows = {name: (cell.mean, cell.half_width, len(cell.values)) for name, cell in self._cells().items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "half width", "n"])

    def __repr__(self) -> str:
        cells = self._cells()
        shown = ", ".join(f"{name} {cells[name]} %" for name in ("accuracy", "forgetting") if name in cells)
        return f"<Records of {self._title}: {shown} over {len(self)} seed{'s' * (len(self) != 1)}>"

    def _repr_html_(self) -> str:
        cells = self._cells().items()
        rows = ((ALL[name].label, f"{cell}{' %' * ALL[name].percent}", len(cell.values)) for name, cell in cells)
        return notebook.grid(self._title, ("", "mean ± half of the 95 % t interval", "seeds"), rows)

    @property
    def _title(self) -> str:
        return title(self._records[0].data["spec"]) if self._records else "nothing"

    def _cells(self) -> dict[str, Cell]:
        """Collect the values of each metric that the runs have: shares in percent, counts as they are."""
        rows = self.frame() if self._records else None
        if rows is None:
            return {}
        known = {name: [v for v in rows[name] if v is not None and v == v] for name in ALL}
        values = {name: [100 * v if ALL[name].percent else v for v in found] for name, found in known.items()}
        return {name: Cell(values=found) for name, found in values.items() if found}
