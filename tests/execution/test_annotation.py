"""Labels from a person: what is asked, what is taken, what is remembered, and what is refused."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import clsim
from clsim.errors import InputError
from clsim.pool.pool import Cost, Pool, Selection
from clsim.spec.components import COMPONENTS
from clsim.training import classifier
from tests.killing import exit_code_of

pytestmark = pytest.mark.usefixtures("workplace")

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 230)}


def blobs(n: int = 90, d: int = 6, classes: int = 3) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    x = 3 * rng.normal(size=(classes, d))[y] + rng.normal(size=(n, d))
    return x.astype(np.float32), [f"class {label}" for label in y]


def photos(folder: str = "photos", n: int = 24) -> dict[str, str]:
    """Flat pictures of one colour and some noise; name → colour."""
    Path(folder).mkdir()
    rng, key = np.random.default_rng(0), {}
    for i in range(n):
        colour = list(COLOURS)[i % 3]
        key[f"{i:02d}.png"] = colour
        x = np.array(COLOURS[colour]) + rng.integers(-25, 25, size=(9, 12, 3))
        Image.fromarray(x.clip(0, 255).astype(np.uint8)).save(Path(folder, f"{i:02d}.png"))
    return key


def of_photos(**more: Any) -> clsim.Labelling:
    return clsim.Labelling("labels.csv", path="photos", **({"size": 8, "selector": "margin"} | more))


def of_blobs(**more: Any) -> clsim.Labelling:
    return clsim.Labelling("labels.csv", **({"features": blobs()[0]} | more))


def truth(files: tuple[str, ...]) -> dict[str, str]:
    return {file: blobs()[1][int(file)] for file in files}


def refusal(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pictures_without_a_class_are_asked_for_and_learnt() -> None:
    key, cost = photos(), Cost()
    loop = of_photos(cost=cost)
    first = loop.ask(9)
    assert not cost.proxy_steps  # nothing can be trained
    assert (len(set(first.files)), first.by, first.number) == (9, "random", 1)
    loop.tell({name: key[name] for name in first.files})
    second = of_photos(cost=cost).ask(6)
    assert cost.proxy_steps == 200
    assert (len(second.files), second.by, second.number, second.labels) == (6, "margin", 2, 9)
    assert not set(first.files) & set(second.files)
    assert Path("labels.csv").read_text() == "file,label\n" + "".join(f"{f},{key[f]}\n" for f in first.files)
    assert of_photos(epochs=60).predict("photos") == key
    assert of_photos().place("07.png") == Path("photos/07.png")


def test_a_net_without_batch_norm_is_trained_at_a_lower_rate_where_it_diverges(monkeypatch: pytest.MonkeyPatch) -> None:
    key, cost = photos(), Cost()
    loop = of_photos(model="mlp", epochs=15, cost=cost)
    loop.tell(dict(list(key.items())[:6]))
    monkeypatch.setattr(classifier, "RATE", 1e4)
    with pytest.raises(InputError, match="has diverged"):
        loop.ask(3)
    assert cost.proxy_steps == 45
    monkeypatch.setattr(classifier, "RATE", 10.0)
    assert len(loop.ask(3).files) == 3
    assert 15 < cost.proxy_steps - 45 <= 45  # not at the first rate
    assert len(set(loop.predict("photos").values())) > 1


def test_folders_are_classes_and_hidden_files_are_not_pictures() -> None:
    key = photos()
    for name, colour in list(key.items())[:9]:
        Path("photos", colour, "deep").mkdir(parents=True, exist_ok=True)
        Path("photos", name).rename(Path("photos", colour, "deep", name))
    Path("photos/._00.png").write_bytes(b"junk of another system")
    Path("photos/.trash").mkdir()
    Path("photos/.trash/a.png").write_bytes(b"junk")
    loop = of_photos()
    assert loop.labels == {f"{colour}/deep/{name}": colour for name, colour in list(key.items())[:9]}
    assert set(loop.ask(100).files) == set(list(key)[9:])
    loop.tell({"red/deep/00.png": "red"})  # what its folder says already
    assert not Path("labels.csv").exists()
    assert "which has 'red' in" in refusal(loop.tell, {"red/deep/00.png": "blue"})


def test_a_folder_of_two_parts_asks_for_its_training_part() -> None:
    photos()
    for part in ("train", "val"):
        Path("divided", part).mkdir(parents=True)
        Path("photos", "00.png" if part == "train" else "01.png").rename(Path("divided", part, "a.png"))
    assert clsim.Labelling("labels.csv", path="divided").files == ("train/a.png",)


@pytest.mark.parametrize("selector", ["badge", "ensemble-entropy", "bald"])
def test_the_picks_are_the_same_however_often_they_are_asked_for(selector: str) -> None:
    asked = []
    for _ in range(2):
        loop = of_blobs(selector=selector, restart=True)
        loop.tell(truth(("0", "1", "2", "3", "4")))
        asked.append(loop.ask(10).files)
        asked.append(loop.ask(10).files)
        loop.ask(5)
        asked.append(loop.ask(10).files)  # of fewer files between: nobody has answered them
        asked.append(of_blobs(selector=selector).ask(10).files)
    assert len(set(asked)) == 1
    assert of_blobs(selector=selector).questions[-1].number == 1
    assert of_blobs(selector=selector, seed=1).ask(10).files not in asked


def test_the_last_question_is_what_it_would_have_been_in_one_session() -> None:
    one, asked = of_blobs(), []
    for _ in range(3):
        asked.append(one.ask(6))
        one.tell(truth(asked[-1].files))
    Path("labels.csv").unlink()
    Path("labels.state.json").unlink()
    for number in range(3):
        found = of_blobs().ask(6)
        assert found == asked[number]
        of_blobs().tell(truth(found.files))
    assert [q.number for q in asked] == [1, 2, 3]
    assert asked[0].agreement is asked[1].agreement is None
    assert asked[2].agreement is not None


def tells_and_dies(move: int, how: str) -> None:
    """Answer the open question, ask the next, and be killed when a file is replaced for the ``move``-th time."""
    replace, moves = os.replace, 0

    def dies(source: Any, target: Any) -> None:
        nonlocal moves
        moves += 1
        if moves == move and how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if moves == move:
            raise KeyboardInterrupt
        replace(source, target)

    os.replace = dies  # type: ignore[assignment]
    loop = of_blobs()
    loop.tell(truth(loop.ask(6).files))
    loop.ask(6)


def test_a_kill_between_any_two_writes_loses_nothing() -> None:
    """Four writes: the first question, its answers, the state, the second question."""
    found = []
    for move in (1, 2, 3, 4, 5):
        for file in ("labels.csv", "labels.state.json"):
            Path(file).unlink(missing_ok=True)
        if move == 3:
            assert exit_code_of(tells_and_dies, move, "kill") == -signal.SIGKILL
        else:
            with pytest.raises(KeyboardInterrupt) if move < 5 else nullcontext(), pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "replace", os.replace)  # put back at the end
                tells_and_dies(move, "interrupt")
        loop = of_blobs()
        assert len(loop.labels) == (0 if move <= 2 else 6)
        if move <= 2:
            loop.tell(truth(loop.ask(6).files))
        found.append((of_blobs().ask(6), of_blobs().labels))
    assert all(state == found[0] for state in found)


def test_a_skip_is_not_asked_again_until_it_has_a_label() -> None:
    loop = of_blobs()
    loop.tell({"0": "a", "1": "b", "2": None, "3": "  "})
    assert loop.skipped == {"2", "3"}
    assert set(of_blobs().ask(100).files) == {str(i) for i in range(4, 90)}
    of_blobs().tell({"2": "a", "3": None})
    assert of_blobs().skipped == {"3"}
    assert of_blobs().labels["2"] == "a"
    text = Path("labels.csv").read_text()
    assert text == "file,label\n0,a\n1,b\n2,\n3,\n2,a\n"
    Path("labels.csv").write_text(text.replace("3,\n", ""))
    assert "3" in of_blobs().ask(100).files


def test_a_new_label_is_a_new_class() -> None:
    loop = of_blobs()
    loop.tell({"0": "a", "1": "b"})
    loop.ask(3)
    assert set(loop.predict(blobs()[0]).values()) <= {"a", "b"}
    loop.tell({"2": "of no class so far"})
    assert loop.predict(blobs()[0])["2"] == "of no class so far"
    assert len(set(of_blobs().predict(blobs()[0]).values())) == 3


def test_what_is_written_in_the_file_of_labels_counts() -> None:
    loop = of_blobs()
    loop.tell(truth(loop.ask(6).files))
    first = loop.ask(6).files
    Path("labels.csv").write_text(Path("labels.csv").read_text().replace("class 0", "other"))
    assert "other" in loop.labels.values()
    assert "class 0" not in loop.labels.values()
    assert of_blobs().ask(6).number == 2
    assert set(of_blobs().ask(6).files).isdisjoint(loop.labels)
    assert first


def test_answers_come_from_the_file_of_the_question() -> None:
    loop = of_blobs()
    asked = loop.ask(4).files
    rows = [f"{asked[0]};class a", f"{asked[1]};", f"{asked[2]};class b"]
    Path("ask.csv").write_text("\r\n".join(["\ufefffile;label", *(row.partition(";")[0] + ";" for row in rows)]))
    assert loop.take("ask.csv") == (0, 0)  # nobody has answered so far
    assert loop.open == asked
    Path("ask.csv").write_text("\r\n".join(["\ufefffile;label", *rows]))
    assert loop.take("ask.csv") == (2, 1)
    assert loop.take("ask.csv") == (0, 0)
    assert (loop.labels, loop.skipped) == ({asked[0]: "class a", asked[2]: "class b"}, {asked[1]})
    assert loop.open == asked[3:]  # its row was deleted


def test_several_files_of_labels() -> None:
    Path("more.csv").write_text("file,label\n5,x\n6,\n7,\n")
    loop = clsim.Labelling(["labels.csv", "more.csv"], features=blobs()[0])
    loop.tell({"7": "y"})
    assert (loop.labels, loop.skipped) == ({"5": "x", "7": "y"}, {"6"})
    assert Path("labels.csv").read_text() == "file,label\n7,y\n"
    Path("labels.csv").write_text("file,label\n5,z\n")
    words = refusal(clsim.Labelling, ["labels.csv", "more.csv"], features=blobs()[0])
    assert words == "more.csv, line 2: found '5' with the label 'x', which has 'z' in labels.csv, line 2; " + (
        "allowed: one label"
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"0": "b"}, "the answers: found '0' with the label 'b', which has 'a' in labels.csv"),
        ({"90": "b"}, "the answers: no file '90' in features; did you mean"),
        ({0: "b"}, "the answers: found the file 0, allowed: a name"),
        ({"1": 3}, "the answer for '1': found the label 3, allowed: text"),
        ({"1": "b\nc"}, "allowed: text without control characters"),
        ({"1": "\ud800"}, "allowed: text without control characters"),
    ],
)
def test_answers_that_do_not_fit_are_refused_whole(given: Mapping[Any, Any], words: str) -> None:
    loop = of_blobs()
    loop.tell({"0": "a"})
    assert words in refusal(loop.tell, {"5": "c", **given})
    assert loop.labels == {"0": "a"}


def test_a_changed_or_missing_file_is_refused() -> None:
    key = photos()
    loop = of_photos()
    loop.tell(dict(list(key.items())[:6]))
    content = Path("photos/03.png").read_bytes()
    Path("photos/03.png").write_bytes(Path("photos/04.png").read_bytes())
    words = "since labels.state.json was written; allowed: the file as it was, or --force (restart=True), which"
    assert refusal(of_photos).startswith(f"photos: '03.png' has changed {words}")
    Path("photos/03.png").write_bytes(content)
    assert of_photos().labels["03.png"] == "red"
    Path("photos/03.png").rename("03.png")
    assert refusal(of_photos).startswith(f"photos: '03.png' is missing {words}")
    assert "labels.csv, line 5: no file '03.png' in photos; did you mean" in refusal(of_photos, restart=True)
    Path("03.png").rename("photos/03.png")
    Path("photos/20.png").unlink()
    assert len(of_photos(restart=True).ask(100).files) == 17
    Path("photos/new.png").write_bytes(content)  # pictures may come
    assert "new.png" in of_photos().ask(100).files


def test_a_changed_row_of_features_is_refused() -> None:
    of_blobs().ask(3)
    x = blobs()[0]
    more = np.concatenate([x, x[:1]])
    assert clsim.Labelling("labels.csv", features=more).files[-1] == "90"
    more[7, 2] += 1e-3
    assert "features: '7' has changed" in refusal(clsim.Labelling, "labels.csv", features=more)


def test_a_file_of_labels_that_goes_missing_is_refused() -> None:
    loop = of_blobs()
    loop.tell(truth(loop.ask(5).files))
    loop.ask(5)
    Path("labels.csv").unlink()
    assert refusal(of_blobs).startswith("labels.csv: is missing, and had labels before")


def test_a_broken_state_and_its_way_out() -> None:
    of_blobs().tell({"0": "a", "1": "b"})
    Path("labels.state.json").write_text("[")
    assert "labels.state.json: is no state of a labelling" in refusal(of_blobs)
    assert of_blobs(restart=True).ask(3).labels == 2


def test_a_broken_picture_is_refused() -> None:
    photos(n=3)
    Path("photos/broken.jpg").write_bytes(b"no picture")
    assert "photos/broken.jpg: cannot be read as an image" in refusal(of_photos().ask, 2)


def test_features_with_names_and_pictures_beside_them() -> None:
    key = photos(n=6)
    np.savez("x.npz", x=blobs(6)[0], files=np.array([*key]))
    loop = clsim.Labelling("labels.csv", features="x.npz", path="photos")
    assert loop.files == tuple(key)
    assert loop.place("03.png") == Path("photos/03.png")
    assert clsim.Labelling("labels.csv", features="x.npz").place("03.png") is None
    loop.tell({"00.png": "a", "01.png": "b"})
    assert set(loop.predict("x.npz")) == set(key)
    assert "found 2 dimensions, allowed: 6" in refusal(loop.predict, np.zeros((1, 2)))
    np.savez("x.npz", x=blobs(6)[0], files=np.array(["a.png"] * 6))
    assert "no two the same" in refusal(clsim.Labelling, "labels.csv", features="x.npz")
    np.savez("x.npz", x=blobs(6)[0], files=np.array([{}] * 6, dtype=object))
    assert "cannot be read as .npz" in refusal(clsim.Labelling, "labels.csv", features="x.npz")
    np.savez("x.npz", z=blobs(6)[0])
    assert "no array 'x'" in refusal(clsim.Labelling, "labels.csv", features="x.npz")


@pytest.mark.parametrize(
    ("selector", "first"), [("badge", "typiclust"), ("kcenter", "kcenter"), ("random", "random"), ("poal", "typiclust")]
)
def test_a_cold_start_on_features(selector: str, first: str) -> None:
    loop = of_blobs(selector=selector)
    assert loop.ask(3).by == first
    assert "predict: found labels of 0 classes, allowed: two or more" in refusal(loop.predict, blobs()[0])
    loop.tell({"0": "a", "3": "a"})
    assert loop.ask(3).by == first  # one class is not enough
    loop.tell({"1": "b"})
    assert loop.ask(3).by == selector


def test_nothing_to_ask() -> None:
    x, labels = blobs(4)
    loop = clsim.Labelling("labels.csv", features=x)
    loop.tell({str(i): label for i, label in enumerate(labels)})
    assert loop.ask(3).files == ()


def test_predictions_that_settle() -> None:
    """κ against its definition, and the mean over three rounds that says stop."""
    loop, tables = of_blobs(selector="random"), []
    for _ in range(6):
        asked = loop.ask(10)
        tables.append(asked.guesses)
        loop.tell(truth(asked.files))
        agreements = [q.agreement for q in loop.questions]
        last = [a for a in agreements[-3:] if a is not None]
        assert loop.settled == (len(last) == 3 and sum(last) / 3 >= 0.99)
    assert loop.settled
    for before, now, found in zip(tables[1:], tables[2:], agreements[2:], strict=False):
        a, b = (np.array([table[name] for name in now]) for table in (before, now))
        same, by_chance = (a == b).mean(), sum((a == c).mean() * (b == c).mean() for c in {*a, *b})
        assert found == pytest.approx((same - by_chance) / (1 - by_chance))


def test_candidates_have_no_label_and_what_is_labelled_stands_beside_them() -> None:
    seen: list[Pool] = []

    def pick(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        seen.append(pool)
        return Selection(torch.arange(budget))

    x, _ = blobs()
    loop = clsim.Labelling("labels.csv", features=x, selector=pick)
    loop.tell({"4": "b", "1": "a", "7": None, "5": "c"})
    asked = loop.ask(3)
    pool = seen[0]
    assert (pool.data.y == -1).all()
    assert pool.data.index.tolist() == [i for i in range(90) if i not in (1, 4, 5, 7)]
    assert pool.labelled is not None
    assert pool.labelled.data.index.tolist() == [1, 4, 5]
    assert pool.labelled.data.y.tolist() == [0, 1, 2]
    assert pool.classes.tolist() == [0, 1, 2]
    assert torch.equal(pool.features, torch.from_numpy(x)[pool.data.index])
    assert asked.files == ("0", "2", "3")


REFUSED = {"class-balanced", "task-balanced", "balanced-random", "forgetting", "grand", "el2n", "glister", "ring"}
REFUSED |= {"loss", "gradient-norm", "rho-loss", "low-irreducible-loss"}


@pytest.mark.parametrize("name", COMPONENTS["selectors"])
def test_every_selector_asks_or_is_refused_by_name(name: str) -> None:
    if name in REFUSED:
        words = "found without labels, allowed: selectors that read no label of a candidate"
        assert refusal(of_blobs, selector=name).startswith(f"{name}: {words}")
        return
    loop = of_blobs(selector=name)
    loop.tell(truth(tuple(map(str, range(9)))) | {"20": None})
    asked = loop.ask(5)
    assert asked.by == name
    assert 1 <= len(asked.files) == len(set(asked.files)) <= 5
    assert not set(asked.files) & {*map(str, range(9)), "20"}
