"""PT4AL's premise: the rank correlation of the pretext loss with the task loss, and what the hardest images are.

A net is trained with the labels of one half of the images, and its losses on the other half are the task losses. The
pretext losses of that half are PT4AL's, of a rotation net trained on that half without labels. Spearman's correlation
a seed, with its mean and 95 % t interval; the share of the commonest class in each tenth of falling pretext loss shows
how even its batches are, and the task loss of each tenth whether they fall as the pretext losses do. Both halves are
ours: the paper's setting for this figure is not known to us.

    python -m benchmarks.pretext [--dataset fashion-mnist] [--model mlp] [--images 10000] [--seeds 5] [--csv FILE]
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from scipy.stats import spearmanr

from clsim.acquisitions.pt4al import Pt4al, loss_batches
from clsim.data import datasets
from clsim.reporting.statistics import t_interval
from clsim.training.workshop import of_dataset, spec_of_call

CPU = torch.device("cpu")


def measured(arguments: argparse.Namespace, seed: int) -> dict[str, float]:
    """Measure one seed: the correlation, and the tenths' commonest class and task loss."""
    threads, epochs = arguments.threads, arguments.epochs
    spec = spec_of_call(arguments.dataset, "", seed=seed, device="cpu", threads=threads, proxy_epochs=epochs)
    data = datasets.load(spec.data, datasets.data_root(None), progress=False)
    shop, images = of_dataset(spec, data, arguments.model, {}, arguments.augment, device=CPU)
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[: arguments.images]
    ours, others = images[rows[: len(rows) // 2]], images[rows[len(rows) // 2 :]]
    pool = shop.pool(ours, shop.trainer().train(others)[0])
    task, labels = pool.losses, ours.y
    acquisition = Pt4al(pool.net, torch.Generator().manual_seed(seed), epochs=arguments.pretext_epochs)
    acquisition.fit(pool, torch.Generator().manual_seed(seed))
    pretext = acquisition.pretext_losses(pool)
    found = {"seed": seed, "correlation": float(spearmanr(pretext, task).statistic)}
    tenth = loss_batches(pretext, 10)
    for i in range(10):
        part = tenth == i
        found[f"commonest_{i}"] = float(labels[part].bincount().max() / part.sum())
        found[f"task_loss_{i}"] = float(task[part].mean())
    return found


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--augment", nargs="*", default=[], help="augmentations of the labelled training")
    parser.add_argument("--images", type=int, default=10_000, help="images, of which half are trained on with labels")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of the net that is trained with labels")
    parser.add_argument("--pretext-epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--csv", type=Path, help="a file for the table")
    arguments = parser.parse_args(given)
    torch.set_num_threads(arguments.threads)
    rows = []
    print(f"{arguments.dataset}, {arguments.model}, {arguments.images:,} images")
    for seed in range(arguments.seeds):
        rows.append(measured(arguments, seed))
        print(f"  seed {seed}: Spearman's {rows[-1]['correlation']:+.3f}", flush=True)
    mean = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
    low, high = t_interval([row["correlation"] for row in rows])
    print(f"  mean {mean['correlation']:+.3f} [{low:+.3f}, {high:+.3f}]")
    print("  tenth of falling pretext loss, its task loss, share of its commonest class")
    for i in range(10):
        print(f"  {i}  {mean[f'task_loss_{i}']:6.3f}  {mean[f'commonest_{i}']:5.2f}")
    if arguments.csv:
        with arguments.csv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
