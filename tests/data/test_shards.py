"""Features on the disk: rows as numpy has them, from one file or many, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clsim.data import shards as module
from clsim.data.shards import shards
from clsim.errors import InputError


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1003, 5)).astype(np.float32)


def folder(place: Path, x: np.ndarray, pieces: int) -> Path:
    place.mkdir()
    for number, rows in enumerate(np.array_split(x, pieces)):
        np.save(place / f"part-{number}.npy", rows)
    return place


ROWS = [np.arange(0), np.arange(1003), np.arange(90, 700), np.array([0, 1, 500, 1002]), np.arange(0, 1003, 3)]


@pytest.mark.parametrize("rows", ROWS, ids=len)
def test_rows_are_those_of_the_array(
    tmp_path: Path, x: np.ndarray, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ", 17 * x[0].nbytes)  # many reads
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "double.npy", x.astype(">f8"))
    many = folder(tmp_path / "many", x, 12)  # 10 comes after 9
    for place in (tmp_path / "x.npy", tmp_path / "double.npy", many):
        found = shards(place)
        assert (len(found), found.width) == x.shape
        np.testing.assert_array_equal(found.take(rows), x[rows])
    assert len(shards(many).files) == 12


@pytest.mark.parametrize("kind", ["columns", "lists", "fixed"])
def test_parquet(tmp_path: Path, x: np.ndarray, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setattr(module, "READ", 17 * x[0].nbytes)
    for number, some in enumerate(np.array_split(x, 3)):
        if kind == "columns":
            table = pa.table({f"f{j}": some[:, j] for j in range(5)})
        elif kind == "lists":
            table = pa.table({"x": pa.array(list(some), type=pa.list_(pa.float32()))})
        else:
            table = pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(some.ravel()), 5)})
        parquet.write_table(table, tmp_path / f"x-{number}.parquet", row_group_size=100)
    for rows in ROWS:
        np.testing.assert_array_equal(shards(tmp_path).take(rows), x[rows])
    uneven = x[:9].tolist()
    uneven[3], uneven[4] = uneven[3] + [1.0], uneven[4][:-1]
    parquet.write_table(pa.table({"x": uneven}), tmp_path / "y.parquet")
    with pytest.raises(InputError, match=r"y\.parquet has rows of unequal length, allowed: 5"):
        shards(tmp_path / "y.parquet").take(np.arange(9))
    parquet.write_table(pa.table({"a": [1.0, None], "b": [1.0, 2.0]}), tmp_path / "y.parquet")
    with pytest.raises(InputError, match="row 1 holds NaN"):
        shards(tmp_path / "y.parquet").take(np.arange(2))
    parquet.write_table(pa.table({"a": ["text"]}), tmp_path / "y.parquet")
    with pytest.raises(InputError, match="1 rows of string; allowed: columns of floats"):
        shards(tmp_path / "y.parquet")


def test_a_damaged_parquet_is_read_or_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = tmp_path / "x.parquet"
    parquet.write_table(pa.table({name: [0.5, 1.5, 2.5, -3.5] for name in "abc"}), file)
    content, refused = file.read_bytes(), list[str]()
    for at in range(0, len(content), 3):
        file.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        try:
            found = shards(file)
            assert np.isfinite(found.take(np.arange(len(found)))).all()
        except InputError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert all(str(file) in line and "\n" not in line for line in refused)


def test_parquet_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"no")
    with pytest.raises(InputError, match=r"needs pyarrow|cannot be read as \.parquet"):
        shards(tmp_path)


def test_shards_that_do_not_belong_together(tmp_path: Path, x: np.ndarray) -> None:
    many = folder(tmp_path / "many", x, 4)
    (many / "part-2.npy").unlink()
    with pytest.raises(InputError, match="has no file with number 2; allowed: all files of a set"):
        shards(many)
    np.save(many / "part-2.npy", x[:, :4])
    with pytest.raises(InputError, match=r"part-2\.npy has 4 features a row, allowed: 5"):
        shards(many)
    (many / "a.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds both \.npy and \.parquet files"):
        shards(many)
    named = tmp_path / "named"
    named.mkdir()
    np.save(named / "x-00000-of-00002.npy", x)
    with pytest.raises(InputError, match="has no file with number 1"):
        shards(named)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \.npy or \.parquet files"):
        shards(tmp_path / "empty")


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((4, 2), dtype=np.int64), "int64 of shape"),
        (np.zeros((0, 2), dtype=np.float32), r"float32 of shape \(0, 2\)"),
        (np.zeros(4, dtype=np.float32), r"float32 of shape \(4,\)"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, array: np.ndarray, found: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match=found):
        shards(tmp_path / "x.npy")


def test_what_is_not_finite_or_has_changed_is_found_when_it_is_read(tmp_path: Path, x: np.ndarray) -> None:
    x[700, 2] = np.nan
    many = folder(tmp_path / "many", x, 2)
    found = shards(many)
    found.take(np.arange(600))
    with pytest.raises(InputError, match=r"part-1\.npy: row 198 holds NaN"):
        found.take(np.arange(1003))
    np.save(many / "part-0.npy", x[:100])
    with pytest.raises(InputError, match="has another shape than at the start"):
        found.take(np.arange(3))
    (many / "part-0.npy").unlink()
    with pytest.raises(InputError, match="no file"):
        found.take(np.arange(3))
    with pytest.raises(InputError, match="found an array in memory"):
        shards(x)
