"""An embedding in a run: kept and shared, the same after a kill, blind to hidden labels; a file; first weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clsim
from clsim.errors import InputError
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool, Selection
from clsim.spec.embedding import EmbeddingSpec
from clsim.spec.readers import about_embedding
from clsim.spec.resolve import resolve
from clsim.spec.run import RunSpec
from clsim.spec.tables import STARTS, ModelSpec
from clsim.training.embeddings import Embeddings
from tests.helpers import assert_same
from tests.killing import Killed, Writes, assert_same_end
from tests.training.test_label_leaks import made
from tests.training.test_label_rounds import numbers

pytestmark = pytest.mark.filterwarnings("ignore:without an initial set")

TINY = ["data.per_class=12", "training.steps=10", "embedding.epochs=1", "embedding.batch_size=32", "labelling.rounds=2"]


def run(folder: Path, label: Any = "typiclust", *more: str, **given: Any) -> clsim.RunRecord:
    given = {"embedding": "simclr", "label_budget": 10} | given
    return clsim.run("active-digits", "finetune", label=label, runs=folder, settings=[*TINY, *more], **given)


def nets_kept(place: Path) -> list[Path]:
    return sorted((place / "data" / "clsim-cache" / "embeddings").glob("*.pt"))


def trained(record: clsim.RunRecord) -> list[dict[str, Any]]:
    return list(record.data["pretraining"])


def test_old_specs_keep_their_fingerprints() -> None:
    plain = RunSpec().as_dict()
    assert "embedding" not in plain
    assert not {"start", "frozen"} & {*plain["model"]}
    settings = ["embedding.epochs=3"]
    assert resolve("active-digits", "finetune", settings=settings) == resolve("active-digits", "finetune")


def test_it_decides_and_one_net_serves_all_runs_of_a_study(workplace: Path) -> None:
    """Its steps and seconds stand in the record; the embedding of one seed is another one's too, if it says so."""
    records = [run(workplace / "runs", label) for label in ("typiclust", "prob-cover")]
    (entry,), (other,) = map(trained, records)
    assert entry == other
    assert len(nets_kept(workplace)) == 1
    assert {"experience", "use", "method", "model", "images", "steps", "seconds", "loss", "file"} == {*entry}
    assert (entry["experience"], entry["use"], entry["images"], entry["steps"]) == (0, "embedding", 120, 3)
    assert entry["file"] == nets_kept(workplace)[0].name
    without = run(workplace / "runs", embedding="none")
    assert "pretraining" not in without.data
    assert numbers(without)["labelling"] != numbers(records[0])["labelling"]
    fixed = [run(workplace / "runs", "typiclust", "embedding.seed=5", seed=seed) for seed in (0, 1)]
    assert trained(fixed[0]) == trained(fixed[1])
    assert len(nets_kept(workplace)) == 2
    run(workplace / "runs", "typiclust", "embedding.seed=5", "training.tf32=none")  # other arithmetic, another net
    assert len(nets_kept(workplace)) == 3


def test_its_principal_components_keep_the_distances(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are those of the images, as a singular value decomposition finds them; one net serves every width."""
    seen: list[torch.Tensor] = []
    plain = Embeddings.__call__

    def watched(self: Embeddings, samples: Exemplars) -> torch.Tensor:
        seen.append(plain(self, samples))
        return seen[-1]

    monkeypatch.setattr(Embeddings, "__call__", watched)

    def embedding(*settings: str) -> torch.Tensor:
        seen.clear()
        run(workplace / "runs", "typiclust", *settings)
        return seen[0]

    whole, narrow, one = (embedding(f"embedding.components={width}") for width in (0, 20, 1))
    assert whole.shape[1] == 96
    assert narrow.shape[1] == 20
    assert len(nets_kept(workplace)) == 1
    centred = whole - whole.mean(0)
    values = torch.linalg.svdvals(centred.double())
    for found, width in ((narrow, 20), (one, 1)):
        about_mean = (found - found.mean(0)).double()
        kept = float(about_mean.square().sum()) / float(values.square().sum())
        assert kept == pytest.approx(float(values[:width].square().sum() / values.square().sum()), rel=0.02)
        assert bool((torch.cdist(found, found) <= torch.cdist(whole, whole) + 1e-3).all())


def test_a_run_that_is_killed_ends_as_if_it_was_not(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the net is gone and trained again, and where nothing can be kept."""
    writes = Writes(monkeypatch)
    more = ["stream.experiences=2", "embedding.model=mlp", "embedding.options.hidden=[16]"]
    whole = run(workplace / "whole", "typiclust", *more)
    assert [entry["experience"] for entry in trained(whole)] == [0, 1]
    for limit in (2, 5, 8):  # as the first net is kept, in the rounds after it, as the second one is kept
        for path in nets_kept(workplace):
            path.unlink()
        folder = workplace / f"{limit}"
        writes.stop_at(limit)
        with pytest.raises(Killed):
            run(folder, "typiclust", *more)
        resumed = run(folder, "typiclust", *more)
        assert numbers(resumed) == numbers(whole)
        assert_same_end(resumed, whole)
        assert [entry["loss"] for entry in trained(resumed)] == [entry["loss"] for entry in trained(whole)]
    damaged: list[Callable[[Path, dict[str, Any]], object]] = [
        lambda path, _: path.write_bytes(b"damaged"),
        lambda path, net: torch.save(net | {"body": {n: w[:1] for n, w in net["body"].items()}}, path),
        lambda path, net: torch.save(net | {"body": {n: w * torch.nan for n, w in net["body"].items()}}, path),
    ]
    for number, damage in enumerate(damaged):
        for path in nets_kept(workplace):
            damage(path, torch.load(path, weights_only=True))
        assert numbers(run(workplace / f"damaged {number}", "typiclust", *more)) == numbers(whole)


@pytest.mark.parametrize("method", STARTS)
def test_hidden_labels_change_no_embedding(workplace: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    found = []
    y = np.arange(120) % 6
    for name, labels in (("a", y), ("b", np.roll(y.reshape(-1, 6), 1, axis=1).ravel())):
        monkeypatch.setenv("CLSIM_DATA", str(workplace / name))  # neither finds the other's net
        more = ["data.dataset=npz", f"data.path={made(workplace / f'{name}.npz', labels)}", "data.per_class=0"]
        record = run(workplace / "runs", "typiclust", *more, "labelling.initial_count=0", embedding=method)
        (net,) = (workplace / name / "clsim-cache" / "embeddings").glob("*.pt")
        first = record.data["labelling"]["rounds"][0]["rows"]
        found.append((net.name, torch.load(net, weights_only=True)["body"], first))
    assert_same(found[0], found[1])


def test_what_nobody_reads_is_not_trained_and_said(workplace: Path) -> None:
    record = run(workplace / "runs", "margin")
    assert "pretraining" not in record.data
    assert not nets_kept(workplace)

    def said(label: str, buffer: str = "none") -> list[str]:
        strategy = "finetune" if buffer == "none" else "er"
        tables = {"labelling": {"selector": label, "budget": 5}, "embedding": {"name": "simclr"}}
        tables |= {} if buffer == "none" else {"memory": {"buffer": buffer}}
        return about_embedding(resolve("active-digits", strategy, flags=tables))

    assert "it is not made" in said("margin")[1]
    assert said("typiclust")[0].startswith("typiclust chooses by the embedding simclr (strided-convnet3")
    assert said("margin", "k-means")[1] == "margin chooses by the learner's net"
    assert said("random") == ["no selector of this run reads the embedding simclr: it is not made"]


def test_a_memory_chooses_by_it_too(workplace: Path) -> None:
    settings = [
        "data.per_class=12",
        "training.epochs=1",
        "embedding.epochs=1",
        "stream.experiences=2",
    ]
    record = clsim.run(
        "split-digits",
        "er",
        buffer="k-means",
        memory=8,
        embedding="rotation",
        settings=settings,
        runs=workplace / "runs",
    )
    assert [(entry["experience"], entry["images"]) for entry in trained(record)] == [(0, 60), (1, 60)]


def written(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return f"./{path.name}"


def test_a_file_gives_each_sample_its_row(workplace: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
    name, seen = written(workplace / "mine.npz", mine=rows), []

    def spying(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        seen.append(pool.embedding.equal(torch.from_numpy(rows)[pool.data.index]))
        assert pool.labelled is not None
        seen.append(pool.labelled.embedding.equal(torch.from_numpy(rows)[pool.labelled.data.index]))
        return Selection(pool.data.key.argsort()[:budget])

    run(workplace / "runs", spying, embedding=name)
    assert seen == [True] * 4
    first = run(workplace / "runs", embedding=name)
    written(workplace / "mine.npz", mine=rows[::-1])
    assert run(workplace / "runs", embedding=name).folder != first.folder, "another file is another run"


def test_a_file_that_does_not_fit_is_refused(workplace: Path) -> None:
    good = np.zeros((120, 3), dtype=np.float32)
    for arrays, message in (
        ({"mine": good[1:]}, "mine has 119 rows, allowed: 120, one for each training image"),
        ({"mine": good.astype(object)}, "Object arrays cannot be loaded"),
        ({"mine": good.astype(int)}, "allowed: float"),
        ({"mine": good + np.nan}, "NaN or infinite"),
        ({"mine": good, "other": good}, "no array 'embedding'"),
    ):
        with pytest.raises(InputError, match=message):
            run(workplace / "runs", embedding=written(workplace / "mine.npz", **arrays))
    with pytest.raises(InputError, match=r"embedding\.name: no file './nothing\.npz'"):
        run(workplace / "runs", embedding="./nothing.npz")
    with pytest.raises(InputError, match=r"stream\.kind: found 'permuted' with embedding\.name"):
        resolve("active-digits", "finetune", settings=["stream.kind=permuted", "embedding.name=./mine.npz"])


def test_what_is_no_image_and_unknown_names_are_refused(workplace: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    path = written(workplace / "v.npz", x_train=x, y_train=np.arange(40) % 4, x_test=x, y_test=np.arange(40) % 4)
    for more, key in (([], "embedding.name"), (["embedding.name=none", "model.start=simclr"], "model.start")):
        with pytest.raises(InputError, match=f"{key}: found 'simclr' with vectors of width 5"):
            run(workplace / "runs", "typiclust", "data.dataset=npz", f"data.path={path}", "data.per_class=0", *more)
    with pytest.raises(InputError, match="did you mean 'simclr'"):
        EmbeddingSpec("simclear")
    with pytest.raises(InputError, match="did you mean 'barlow'"):
        ModelSpec(start="barlo")


def test_every_round_starts_from_first_weights_that_were_learnt(workplace: Path) -> None:
    """Frozen, the body keeps them to the end, and the head is trained; a file of them gives the same run."""
    more = ["model.start=rotation", "model.frozen=true"]
    record = run(workplace / "runs", "margin", *more, embedding="none")
    (entry,) = trained(record)
    assert (entry["use"], entry["method"], entry["model"]) == ("start", "rotation", "mlp")
    (kept,) = nets_kept(workplace)
    body = torch.load(kept, weights_only=True)["body"]

    def end(record: clsim.RunRecord) -> dict[str, torch.Tensor]:
        assert record.folder is not None
        return torch.load(record.folder / "checkpoint.pt", weights_only=True)["learner"]["net"]

    net = end(record)
    assert_same({name: net[f"body.{name}"] for name in body}, body)
    drawn = end(run(workplace / "runs", "margin", embedding="none"))
    assert not drawn["head.weight"].equal(net["head.weight"])
    own = workplace / "own.pt"
    own.write_bytes(kept.read_bytes())
    again = run(workplace / "runs", "margin", f"model.start={own}", "model.frozen=true", embedding="none")
    assert "pretraining" not in again.data
    assert numbers(again) == numbers(record)
    tuned = end(run(workplace / "runs", "margin", "model.start=rotation", embedding="none"))
    assert not any(tuned[f"body.{name}"].equal(body[name]) for name in body)


def test_first_weights_are_of_the_first_experience_alone(workplace: Path) -> None:
    more = ["stream.experiences=2", "model.start=simclr"]
    (entry,) = trained(run(workplace / "runs", "margin", *more, embedding="none"))
    assert (entry["experience"], entry["images"]) == (0, 60)


def test_first_weights_that_do_not_fit_are_refused(workplace: Path) -> None:
    run(workplace / "runs", "margin", "model.start=rotation", embedding="none")
    (kept,) = nets_kept(workplace)
    with pytest.raises(InputError, match=r"does not fit model 'mlp' \(.*size mismatch.*allowed: weights of the same"):
        run(workplace / "runs", "margin", f"model.start={kept}", "model.options.hidden=[30]", embedding="none")
    (workplace / "no.pt").write_bytes(b"no")
    with pytest.raises(InputError, match=r"no\.pt' is no file of a net that clsim trained without labels"):
        run(workplace / "runs", "margin", "model.start=./no.pt", embedding="none")
    with pytest.raises(InputError, match=r"model\.frozen: found true with start = 'none'"):
        ModelSpec(frozen=True)
    with pytest.raises(InputError, match=r"model\.frozen: found true with learner 'ewc'"):
        resolve("split-digits", "ewc", settings=["model.start=simclr", "model.frozen=true"])
