"""The shipped components by name: kind → name → the place of the code, which is not imported here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BOUNDS = {
    "balanced-random": "clsim.acquisitions.bounds:BalancedRandom",
    "greedy-oracle": "clsim.acquisitions.bounds:GreedyOracle",
}
"""Choices of labels that read hidden labels: name → the place of the code. Every table of such a run must say so."""

COMPONENTS: dict[str, dict[str, str]] = {
    "selectors": {
        # uniform, and in order of arrival
        "random": "clsim.selectors.random:random",
        "reservoir": "clsim.selectors.random:reservoir",
        "class-balanced": "clsim.selectors.random:class_balanced",
        "task-balanced": "clsim.selectors.random:task_balanced",
        # coverage
        "herding": "clsim.selectors.herding:herding",
        "kcenter": "clsim.selectors.kcenter:k_center",
        "kcenter-pca": "clsim.selectors.kcenter:k_center_pca",
        "kcenter-robust": "clsim.selectors.kcenter:k_center_robust",
        "prob-cover": "clsim.selectors.probcover:prob_cover",
        "max-herding": "clsim.selectors.max_herding:max_herding",
        "uncertainty-herding": "clsim.selectors.max_herding:uncertainty_herding",
        "dacs": "clsim.selectors.dacs:dacs",
        "density": "clsim.selectors.typicality:density",
        "centre-of-gravity": "clsim.selectors.typicality:centre_of_gravity",
        # clusters
        "k-means": "clsim.selectors.clusters:k_means",
        "k-medoids": "clsim.selectors.medoids:k_medoids",
        "clue": "clsim.selectors.clusters:clue",
        "agglomerative": "clsim.selectors.clusters:agglomerative",
        "typiclust": "clsim.selectors.typicality:typiclust",
        "usl": "clsim.selectors.typicality:usl",
        # submodular
        "facility-location": "clsim.selectors.submodular:facility_location",
        "graph-cut": "clsim.selectors.submodular:graph_cut",
        "log-det": "clsim.selectors.submodular:log_det",
        "disparity-min": "clsim.selectors.submodular:disparity_min",
        "disparity-sum": "clsim.selectors.submodular:disparity_sum",
        "feature-based": "clsim.selectors.submodular:feature_based",
        "craig": "clsim.selectors.craig:craig",
        # information measures
        "flvmi": "clsim.selectors.information:flvmi",
        "flqmi": "clsim.selectors.information:flqmi",
        "gcmi": "clsim.selectors.information:gcmi",
        "logdetmi": "clsim.selectors.information:logdetmi",
        "com": "clsim.selectors.information:com",
        "flcg": "clsim.selectors.information:flcg",
        "gccg": "clsim.selectors.information:gccg",
        "logdetcg": "clsim.selectors.information:logdetcg",
        "flcmi": "clsim.selectors.information:flcmi",
        "logdetcmi": "clsim.selectors.information:logdetcmi",
        # gradients
        "grad-match": "clsim.selectors.grad_match:grad_match",
        "glister": "clsim.selectors.bilevel:glister",
        "glister-active": "clsim.selectors.bilevel:glister_active",
        "badge": "clsim.selectors.badge:badge",
        "bait": "clsim.selectors.bait:bait",
        "acs-fw": "clsim.selectors.bayesian:acs_fw",
        "sparse-approximation": "clsim.selectors.bayesian:sparse_approximation",
        # dynamics
        "forgetting": "clsim.selectors.dynamics:forgetting",
        "grand": "clsim.selectors.dynamics:grand",
        "el2n": "clsim.selectors.dynamics:el2n",
        # losses of one net, and of an irreducible-loss net beside it
        "rho-loss": "clsim.selectors.losses:rho_loss",
        "loss": "clsim.selectors.losses:loss",
        "gradient-norm": "clsim.selectors.losses:gradient_norm",
        "low-irreducible-loss": "clsim.selectors.losses:low_irreducible_loss",
        # uncertainty
        "least-confidence": "clsim.selectors.uncertainty:least_confidence",
        "entropy": "clsim.selectors.uncertainty:entropy",
        "margin": "clsim.selectors.uncertainty:margin",
        "variation-ratio": "clsim.selectors.uncertainty:variation_ratio",
        "mc-least-confidence": "clsim.selectors.uncertainty:mc_least_confidence",
        "mc-entropy": "clsim.selectors.uncertainty:mc_entropy",
        "mc-margin": "clsim.selectors.uncertainty:mc_margin",
        "mc-variation-ratio": "clsim.selectors.uncertainty:mc_variation_ratio",
        "ensemble-least-confidence": "clsim.selectors.uncertainty:ensemble_least_confidence",
        "ensemble-entropy": "clsim.selectors.uncertainty:ensemble_entropy",
        "ensemble-margin": "clsim.selectors.uncertainty:ensemble_margin",
        "ensemble-variation-ratio": "clsim.selectors.uncertainty:ensemble_variation_ratio",
        "bald": "clsim.selectors.disagreement:bald",
        "ensemble-bald": "clsim.selectors.disagreement:ensemble_bald",
        "vote-entropy": "clsim.selectors.disagreement:vote_entropy",
        "mc-vote-entropy": "clsim.selectors.disagreement:mc_vote_entropy",
        "mean-std": "clsim.selectors.disagreement:mean_std",
        "power-bald": "clsim.selectors.disagreement:power_bald",
        "epig": "clsim.selectors.prospects:epig",
        "core-mse": "clsim.selectors.prospects:core_mse",
        # batches
        "batch-bald": "clsim.selectors.disagreement:batch_bald",
        "cluster-margin": "clsim.selectors.balanced:cluster_margin",
        "balancing": "clsim.selectors.balanced:balancing",
        "balanced-random": "clsim.selectors.balanced:balanced_random",
        "fass": "clsim.selectors.fass:fass",
        "poal": "clsim.selectors.pareto:poal",
        # samples whose label flips, one of each cluster
        "dropquery": "clsim.selectors.flips:dropquery",
        "alfa-mix": "clsim.selectors.flips:alfa_mix",
        # boundary
        "boundary-margin": "clsim.selectors.boundary:boundary_margin",
        "base": "clsim.selectors.boundary:base",
        "cal": "clsim.selectors.boundary:cal",
        "contextual-diversity": "clsim.selectors.boundary:contextual_diversity",
        "deepfool": "clsim.selectors.adversarial:deepfool",
        "adversarial-bim": "clsim.selectors.adversarial:adversarial_bim",
        # continual
        "ring": "clsim.selectors.continual:ring",
        "mean-of-features": "clsim.selectors.continual:mean_of_features",
        "rainbow": "clsim.selectors.continual:rainbow",
        "gss-greedy": "clsim.selectors.interference:gss_greedy",
        "mir": "clsim.selectors.interference:mir",
    },
    "acquisitions": {
        # one sample after the other, in a stream
        "fixed-uncertainty": "clsim.acquisitions.stream_policies:FixedUncertainty",
        "variable-uncertainty": "clsim.acquisitions.stream_policies:VariableUncertainty",
        "random-variable-uncertainty": "clsim.acquisitions.stream_policies:RandomVariableUncertainty",
        "split": "clsim.acquisitions.stream_policies:Split",
        "density-based": "clsim.acquisitions.stream_policies:DensityBased",
        "cognitive-dual-query": "clsim.acquisitions.stream_policies:CognitiveDualQuery",
        # trained with the learner
        "learning-loss": "clsim.acquisitions.learning_loss:LearningLoss",
        "cod": "clsim.acquisitions.tod:OutputDiscrepancy",
        "tod": "clsim.acquisitions.tod:TemporalDiscrepancy",
        # labels some itself
        "ceal": "clsim.acquisitions.ceal:CostEffective",
        # against a critic that tells labelled samples from the others
        "vaal": "clsim.acquisitions.vaal:Vaal",
        "waal": "clsim.acquisitions.waal:Waal",
        "dalbt": "clsim.acquisitions.dalbt:Dalbt",
        # with a net of its own, trained on a pretext task
        "pt4al": "clsim.acquisitions.pt4al:Pt4al",
    },
    "bounds": BOUNDS,
    "pruners": {
        "info-batch": "clsim.training.info_batch:InfoBatch",
    },
    "condensers": {
        "dm": "clsim.condensers.distribution:dm",
        "dc": "clsim.condensers.gradient_matching:dc",
        "dsa": "clsim.condensers.gradient_matching:dsa",
        "dcc": "clsim.condensers.gradient_matching:dcc",
        "dsac": "clsim.condensers.gradient_matching:dsac",
        "idc": "clsim.condensers.formation:idc",
        "acc-dd": "clsim.condensers.formation:acc_dd",
    },
    "learners": {
        "sgd": "clsim.learners.sgd:Sgd",
        "gdumb": "clsim.learners.replay.gdumb:Gdumb",
        # penalties on important weights
        "ewc": "clsim.learners.regularisation.penalties:ewc",
        "mas": "clsim.learners.regularisation.penalties:mas",
        "mean-imm": "clsim.learners.regularisation.imm:mean_imm",
        "mode-imm": "clsim.learners.regularisation.imm:mode_imm",
        "online-ewc": "clsim.learners.regularisation.penalties:online_ewc",
        "rwalk": "clsim.learners.regularisation.rwalk:RWalk",
        "si": "clsim.learners.regularisation.si:Si",
        # from labelled and unlabelled samples
        "paws": "clsim.learners.semi.paws:paws",
        "csl": "clsim.learners.semi.paws:csl",
        "nncsl": "clsim.learners.semi.paws:nncsl",
        "pseudo-label": "clsim.learners.semi.pseudolabels:pseudo_label",
        "fixmatch": "clsim.learners.semi.pseudolabels:fixmatch",
        "mixmatch": "clsim.learners.semi.mixing:mixmatch",
        "remixmatch": "clsim.learners.semi.mixing:remixmatch",
        "comatch": "clsim.learners.semi.comatch:comatch",
        "ccic": "clsim.learners.semi.ccic:Ccic",
        # distillation from the old net
        "lwf": "clsim.learners.regularisation.distilling:lwf",
        "ebll": "clsim.learners.regularisation.distilling:ebll",
        "lwm": "clsim.learners.regularisation.distilling:lwm",
        "lfl": "clsim.learners.regularisation.lfl:Lfl",
        # replay, and projection by memories
        "gem": "clsim.learners.replay.gem:gem",
        "a-gem": "clsim.learners.replay.gem:a_gem",
        "der": "clsim.learners.replay.der:der",
        "der++": "clsim.learners.replay.der:DerPlusPlus",
        "er-ace": "clsim.learners.replay.er_ace:er_ace",
        # a part of the net for each task
        "packnet": "clsim.learners.isolation.packnet:PackNet",
        "hat": "clsim.learners.isolation.hat:Hat",
        # replay with distillation, and with a readout or a softmax of the learner's own
        "bic": "clsim.learners.replay.bic:Bic",
        "icarl": "clsim.learners.replay.icarl:Icarl",
        "ss-il": "clsim.learners.replay.ss_il:SsIl",
    },
    "models": {
        "linear": "clsim.models.nets:linear",
        "mlp": "clsim.models.nets:mlp",
        "convnet3": "clsim.models.nets:convnet3",
        "pooled-convnet3": "clsim.models.nets:pooled_convnet3",
        "strided-convnet3": "clsim.models.nets:strided_convnet3",
        "slim-resnet18": "clsim.models.resnet:slim_resnet18",
        "resnet18": "clsim.models.resnet:resnet18",
        "vgg-small": "clsim.models.vgg:vgg_small",
        "vgg-base": "clsim.models.vgg:vgg_base",
        "vgg-wide": "clsim.models.vgg:vgg_wide",
        "vgg-deep": "clsim.models.vgg:vgg_deep",
    },
    "pools": {
        # classes of few samples
        "rare": "clsim.streams.pools.rare:rare",
        "long-tail": "clsim.streams.pools.imbalance:long_tail",
        "step": "clsim.streams.pools.imbalance:step",
        # copies, and what is of no class
        "redundant": "clsim.streams.pools.redundant:redundant",
        "outsiders": "clsim.streams.pools.outsiders:outsiders",
        # labels, and experiences that overlap
        "noise": "clsim.streams.pools.noise:noise",
        "blurry": "clsim.streams.pools.blurry:blurry",
    },
    "objectives": {
        "replay": "clsim.objectives.replay:replay",
    },
}

OPTIMIZERS: dict[str, tuple[str, str]] = {
    "sgd": ("Stochastic gradient descent, with momentum and Nesterov's momentum where they are set", ""),
    "adam": ("Steps scaled by running moments of the gradient", "Kingma & Ba, Adam (ICLR 2015)"),
    "adamw": (
        "Adam whose weight decay is apart from the gradient",
        "Loshchilov & Hutter, Decoupled Weight Decay Regularization (ICLR 2019)",
    ),
    "nadam": ("Adam with Nesterov's momentum", "Dozat, Incorporating Nesterov Momentum into Adam (ICLR workshop 2016)"),
    "lars": (
        "SGD with momentum, each weight tensor's gradient scaled to the size of the weights",
        "You, Gitman & Ginsburg, Large Batch Training of Convolutional Networks (2017), algorithm 1",
    ),
}
"""Name of an optimizer → a description in one line, and the source."""

OF_SOME = {
    **dict.fromkeys(("momentum", "nesterov"), ("sgd", "lars")),
    **dict.fromkeys(("trust", "head_lr"), ("lars",)),
}
"""Key of ``[optimizer]`` → the optimizers that read it; all read the other keys."""

COMBINATORS = {
    "per_class": "clsim.selectors.combinators:per_class",
    "prefilter": "clsim.selectors.combinators:prefilter",
    "subsample": "clsim.selectors.combinators:subsample",
    "topped_up": "clsim.selectors.combinators:topped_up",
    "whole": "clsim.selectors.combinators:whole",
}
"""Combinators, which make a selector of other selectors, as in ``per_class(kcenter)``: name → the place of the code."""

PLAIN = {"per_class", "topped_up", "whole"}
"""Combinators under which a selector is updated as it is without them."""

ALIASES: dict[str, str] = {
    "uniform": "random",
    "k-center": "kcenter",
    "rholoss": "rho-loss",
    "grad-norm": "gradient-norm",
    "qbc": "vote-entropy",
    "mc-qbc": "mc-vote-entropy",
    "dbal": "mc-entropy",
    "mase": "boundary-margin",
    "consensus-kl": "ensemble-bald",
    "adversarial-deepfool": "deepfool",
    "coreset": "kcenter",
    "probcover": "prob-cover",
    "center-of-gravity": "centre-of-gravity",
    "cog": "centre-of-gravity",
    "kmeans": "k-means",
    "kmedoids": "k-medoids",
    "gradmatch": "grad-match",
    "gss": "gss-greedy",
    "mof": "mean-of-features",
    "alfamix": "alfa-mix",
    "maxherding": "max-herding",
    "uherding": "uncertainty-herding",
}
"""Another name of a selector, used in the literature → its name in clsim."""

OVER_ALL = {
    *("random", "reservoir", "class-balanced", "task-balanced"),
    *("ring", "gss-greedy"),  # ring balances the classes itself; gss-greedy compares with the whole memory
    *("base", "balancing", "balanced-random"),  # these balance the classes themselves, by labels or predictions
}
"""Selectors that fill a memory as a whole; as ``--buffer``, all others are applied to each class separately."""

_MATCHING = {"model": "convnet3", "iterations": 2, "steps": 10, "epochs": 5, "real": 64, "lr": 1.0}

STREAM_POLICIES = (
    *("fixed-uncertainty", "variable-uncertainty", "random-variable-uncertainty"),
    *("split", "density-based", "cognitive-dual-query"),
)
"""Acquisitions that decide on each sample of a stream as it comes."""

COLD_STARTS = ("pt4al",)
"""Acquisitions whose first choice in an experience does not go by the learner's net."""

LABEL_DEFAULTS: dict[str, dict[str, Any]] = {
    **{name: {"update": "batch"} for name in STREAM_POLICIES},
    "learning-loss": {"start": "warm"},
    **{name: {"start": "warm"} for name in ("cod", "tod")},
    "pt4al": {"start": "warm"},
}
"""Name of a selector of labels → the keys of ``[labelling]`` that it sets besides itself, as its source does."""

BUFFER_DEFAULTS: dict[str, dict[str, Any]] = {
    **{name: {"update": "batch"} for name in ("reservoir", "ring", "gss-greedy")},
    "dm": {"shrink": "condense", "options": {"model": "convnet3", "iterations": 50, "real": 64}},
    **{name: {"options": dict(_MATCHING)} for name in ("dsa", "dcc", "dsac")},
    "dc": {"options": {**_MATCHING, "start": "real"}},
    **{
        name: {
            "options": {
                "model": "convnet3",
                "iterations": 2,
                "steps": 10,
                "real": 16,
                "most": 8,
                "samples": 64,
                "lr_scale": 10.0,
            }
        }
        for name in ("idc", "acc-dd")
    },
}
"""Name of a buffer → the keys of ``[memory]`` that it sets besides the selector.

A reservoir is a random memory that every batch updates. A condenser uses the papers' ConvNet-3, and far fewer
iterations than in the papers, so that a stream of twenty tasks is feasible on a CPU. So few steps need larger ones: ten
times the papers' learning rate, by ``lr`` or ``lr_scale`` (DM's follows from its iterations), and real images to begin
with, for DC too. DM, the fastest condenser, condenses old classes again when their shares of a fixed memory shrink.
"""

DIGITS = ("digits", "mnist", "kmnist", "svhn", "usps")
"""Data sets whose images must not be mirrored, since a mirrored digit or character has another meaning."""


def are_digits(dataset: str, sequence: Sequence[str] = ()) -> bool:
    """Tell whether all data sets of a run are :data:`DIGITS`; ``sequence`` names those of the data set of that name.

    >>> are_digits("mnist"), are_digits("sequence", ["mnist", "fashion-mnist"])
    (True, False)
    """
    return {*sequence, dataset} - {"sequence"} <= {*DIGITS}


DIGITS_DEFAULTS: dict[str, dict[str, Any]] = {
    name: {"options": {"augment": ["color", "crop", "cutout", "scale", "rotate"]}} for name in ("dm", "dsa", "dsac")
}
"""Name of a buffer → the keys of ``[memory]`` that it also sets on :data:`DIGITS`: augmentations without mirroring."""
