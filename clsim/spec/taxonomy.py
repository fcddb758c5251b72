"""The acquisitions by what they go by: branches and leaves of ``clsim list --taxonomy``.

The grouping is ours: the taxonomies of the surveys of deep active learning could not be read.
"""

from __future__ import annotations

TAXONOMY: dict[str, dict[str, tuple[str, ...]]] = {
    "chance": {
        "uniform": ("random", "reservoir"),
    },
    "uncertainty of one net": {
        "its softmax": ("least-confidence", "margin", "entropy", "variation-ratio", "ceal", "dalbt"),
        "distance to its decision boundary": ("boundary-margin", "deepfool", "adversarial-bim"),
        "its loss, estimated without a label": ("learning-loss", "cod", "tod"),
    },
    "Bayesian: nets drawn by dropout": {
        "uncertainty of their mean": ("mc-least-confidence", "mc-margin", "mc-entropy", "mc-variation-ratio"),
        "their disagreement": (
            *("bald", "batch-bald", "power-bald", "epig", "core-mse", "mean-std", "mc-vote-entropy"),
        ),
        "approximation of the posterior": ("acs-fw", "sparse-approximation"),
    },
    "committee: nets trained apart": {
        "uncertainty of their mean": (
            *("ensemble-least-confidence", "ensemble-margin", "ensemble-entropy", "ensemble-variation-ratio"),
        ),
        "their disagreement": ("vote-entropy", "ensemble-bald"),
    },
    "representative and diverse samples": {
        "coverage": ("kcenter", "kcenter-pca", "kcenter-robust", "prob-cover", "max-herding", "dacs", "vaal"),
        "clusters": ("k-means", "k-medoids", "agglomerative", "typiclust", "usl"),
        "density, and distance from the mean": ("density", "herding", "mean-of-features", "centre-of-gravity"),
        "submodular and dispersion functions": (
            *("facility-location", "graph-cut", "log-det", "disparity-min", "disparity-sum", "feature-based"),
        ),
    },
    "expected effect on the model": {
        "gradients": ("grad-match", "craig"),
        "loss on labelled samples": ("glister-active",),
    },
    "hybrid: uncertain and diverse": {
        "diverse samples, weighted by uncertainty or by gradients": (
            *("badge", "bait", "uncertainty-herding", "clue", "waal"),
        ),
        "a shortlist of uncertain samples, then diverse ones": ("fass", "cluster-margin", "dropquery", "alfa-mix"),
        "unlike their neighbours, or each other, in prediction": ("cal", "contextual-diversity"),
        "strata of uncertainty, or uncertain ones of a stratum": ("rainbow", "pt4al"),
    },
    "balance and targets": {
        "classes alike": ("base", "balancing"),
        "like a query": ("flvmi", "flqmi", "gcmi", "logdetmi", "com"),
        "unlike what is labelled": ("flcg", "gccg", "logdetcg"),
        "like a query, unlike what is labelled": ("flcmi", "logdetcmi"),
        "insiders": ("poal",),
    },
    "streams: one sample after the other": {
        "uncertainty under a budget": (
            *("fixed-uncertainty", "variable-uncertainty", "random-variable-uncertainty", "split"),
        ),
        "density under a budget": ("density-based", "cognitive-dual-query"),
    },
}
"""Branch → leaf → the selectors and acquisitions of the leaf; the first stands for it in ``studies/deep-al-survey``."""


def leaves() -> list[tuple[str, str, tuple[str, ...]]]:
    """List the leaves: branch, leaf, names."""
    return [(branch, leaf, names) for branch, of in TAXONOMY.items() for leaf, names in of.items()]
