"""
From nothing to a paper's table
===============================

A net learns ten digits, two at a time, and forgets the first ones while it learns the last ones. It may keep 50 images.
Which?

On this page you make a first run and look at its accuracy matrix, compare several ways to choose the 50 images over
five seeds, write the table of the comparison as Markdown and LaTeX, add a selector of your own, and then ask for labels
instead of having them all. Everything runs in under two minutes on two cores, with the digits that come with
scikit-learn: nothing is downloaded.
"""

# %%
# A first run
# -----------
#
# A *scenario* says which data there are and how they become a stream of *experiences*: ``split-digits`` has five, with
# two digits each. The *strategy* is how a net is trained: ``er``, experience replay, mixes each batch of new images
# with a batch from a memory. The *buffer* is the selector that fills the memory.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import clsim

runs = tempfile.mkdtemp()  # where runs are kept; without this argument, in the folder runs/
record = clsim.run("split-digits", "er", buffer="random", memory=50, runs=runs)
record.accuracy.round(3)

# %%
# Row *i* is the net after experience *i*, column *j* the test images of experience *j*. The diagonal says how well an
# experience was learnt when it came, the last row what is left at the end.

figure, axes = plt.subplots(figsize=(4.6, 3.8))
image = axes.imshow(100 * record.accuracy, vmin=0, vmax=100, cmap="viridis")
for (i, j), value in record.accuracy.stack().items():
    axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", color="black" if value > 0.6 else "white")
axes.set(xlabel="tested on experience", ylabel="after experience", title="accuracy, %")
figure.colorbar(image, ax=axes)
figure.tight_layout()

# %%
# Every metric is a function of this matrix, with its formula and source in the reference.

for name in ("accuracy", "learning_accuracy", "forgetting"):
    print(f"{name:18} {100 * record.metrics[name]:5.1f} %")

# %%
# The same call again does not run again: the record is read. A run that was stopped goes on from its last experience,
# with the same numbers, bit for bit.

again = clsim.run("split-digits", "er", buffer="random", memory=50, runs=runs)
print("read, not run:", again.read)

# %%
# A study
# -------
#
# One run answers nothing: another seed gives another number. A *study* is a grid of runs. Here: three buffers, and
# fine-tuning, which keeps no memory and marks the bottom; five seeds each. The runs are carried out in as many
# processes as there are cores.

study = clsim.study(
    scenario="split-digits",
    strategy=["er", "finetune"],
    buffer=["random", "herding", "kcenter"],
    memory=50,
    seeds=5,
    runs=runs,
)
study.frame()[["strategy", "buffer", "seed", "accuracy", "forgetting"]].head(8)

# %%
# The table
# ---------
#
# A *report* is a small TOML file: what labels the rows and columns, and which metrics. It pools runs over seeds: the
# mean, and half of its 95 % interval. ``*`` marks the best mean, ``~`` what a paired t test over the common seeds
# cannot tell from it, with Holm's correction. ``arms`` is what is compared.

table = Path(runs, "table.toml")
table.write_text("""
rows = ["strategy", "buffer"]
columns = ["scenario"]
arms = ["strategy", "buffer"]
metrics = ["accuracy", "forgetting"]
""")
clsim.report(str(table), study.records)

# %%
# With ``tests=True`` it also shows each pair: the difference with its interval, the p value with and without
# correction, and how many seeds such a difference needs.

clsim.report(str(table), study.records, tests=True)

# %%
# For a paper or an issue, the same tables are text:

report = clsim.report(str(table), study.records)
print(report.to_markdown())

# %%

print(report.to_latex())

# %%
# How accuracy develops along the stream:

figure, axes = plt.subplots(figsize=(5.6, 3.6))
for (strategy, buffer), of in study.frame().groupby(["strategy", "buffer"]):
    chosen = [r for r in study.records if r.data["fingerprint"] in set(of["fingerprint"])]
    curves = torch.tensor([[r.accuracy.iloc[i, : i + 1].mean() for i in range(5)] for r in chosen])
    axes.plot(range(1, 6), 100 * curves.mean(0), marker="o", label=f"{strategy} {buffer}".rstrip(" –"))
axes.set(xlabel="experiences learnt", ylabel="accuracy on these, %", xticks=range(1, 6), ylim=(0, 102))
axes.legend()
figure.tight_layout()

# %%
# On these digits, k-center is a good memory. On Fashion-MNIST and CIFAR-100 it loses to random, since it keeps outliers
# first. One small data set is not enough to judge a selector by. See *Why k-center loses* under *Explanation*.

# %%
# A selector of your own
# ----------------------
#
# A selector is a function: out of a pool, row numbers, best first. This one keeps, of each class in turn, the sample
# that the net is surest of. ``check_selector`` runs the contract on it, on many small pools, and raises with one
# sentence if it breaks a promise.


def surest(pool: clsim.Pool, budget: int, *, rng: torch.Generator) -> clsim.Selection:
    """Keep what the net is surest of, the classes in turn."""
    turn, certainty = torch.zeros(len(pool)), pool.probabilities.amax(1)
    for label in pool.data.y.unique():
        rows = (pool.data.y == label).nonzero().flatten()
        order = certainty[rows].argsort(descending=True, stable=True)
        turn[rows[order]] = torch.arange(len(rows), dtype=turn.dtype)
    return clsim.Selection(turn.argsort(stable=True)[:budget])


clsim.check_selector(surest)

# %%
# Now it stands beside the others. What was run above is read, so that only five runs are made. They are carried out in
# this process (``workers=1``), since a function that is defined here cannot be found by another one; in a file, it is
# named ``./mine.py:surest`` and needs nothing of the kind.

mine = clsim.study(
    buffer=["random", "herding", "kcenter", surest],
    memory=50,
    seeds=5,
    workers=1,
    runs=runs,
)
clsim.report(str(table), mine.records)

# %%
# Asking for labels
# -----------------
#
# The same selectors can choose which images are *labelled*. ``active-digits`` has one experience: one label of each
# class to begin with, then five rounds in which 20 labels are asked for; in each round, a fresh net is trained on what
# is labelled.

asked = clsim.study(
    scenario="active-digits",
    strategy="finetune",
    label=["random", "badge", "typiclust"],
    seeds=3,
    settings={"training.steps": 150},
    runs=runs,
)
figure, axes = plt.subplots(figsize=(5.6, 3.6))
for label in ("random", "badge", "typiclust"):
    rounds = [r.data["labelling"]["rounds"] for r in asked.records if r.data["spec"]["labelling"]["selector"] == label]
    labels = [one["labelled"] for one in rounds[0]]
    accuracy = torch.tensor([[one["accuracy"][0] for one in of] for of in rounds])
    axes.plot(labels, 100 * accuracy.mean(0), marker="o", label=label)
axes.set(xlabel="labels", ylabel="accuracy, %")
axes.legend()
figure.tight_layout()

# %%
# AUBC is the area under this curve, divided by the range of labels: an accuracy over all budgets.

active = clsim.report("active", asked.records)
active.tables["area under the budget curve (AUBC), %"]

# %%
# Where to go from here
# ---------------------
#
# - Another data set: ``clsim.run("split-fashion-mnist", …)`` downloads it at its first use. ``clsim list scenarios`` on
#   the command line has all; ``clsim list selectors`` has the selectors.
# - Parts of your own, data of your own, a cluster, a GPU, a person who labels: the how-to guides, a page each.
# - What is held equal in a comparison, how seeds work, why k-center loses: the explanations.
