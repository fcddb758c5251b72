"""What is shipped, by name: kind → name → where its code is. Nothing is imported to read it."""

from __future__ import annotations

from typing import Any

COMPONENTS: dict[str, dict[str, str]] = {
    "selectors": {
        # uniform, and in order of arrival
        "random": "clsim.selectors.random:random",
        "reservoir": "clsim.selectors.random:reservoir",
        "class-balanced": "clsim.selectors.random:class_balanced",
        # coverage
        "herding": "clsim.selectors.herding:herding",
        "kcenter": "clsim.selectors.kcenter:k_center",
        # clusters
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
        # dynamics
        # uncertainty
        # batches
        # boundary
        # continual
    },
    "learners": {
        "sgd": "clsim.learners.sgd:Sgd",
        "gdumb": "clsim.learners.gdumb:Gdumb",
    },
    "models": {
        "linear": "clsim.models:linear",
        "mlp": "clsim.models:mlp",
        "convnet3": "clsim.models:convnet3",
        "slim-resnet18": "clsim.models:slim_resnet18",
        "resnet18": "clsim.models:resnet18",
    },
    "objectives": {
        "replay": "clsim.objectives.replay:replay",
    },
}

COMBINATORS = {
    "per_class": "clsim.selectors.combinators:per_class",
    "whole": "clsim.selectors.combinators:whole",
}
"""Selectors made of selectors: ``per_class(kcenter)``."""

ALIASES: dict[str, str] = {
    "uniform": "random",
    "k-center": "kcenter",
}
"""A selector's other names in the field → its name here."""

OVER_ALL = {"random", "reservoir", "class-balanced"}
"""Selectors that fill a memory as a whole; as ``--buffer``, every other one is applied to each class apart."""

BUFFER_DEFAULTS: dict[str, dict[str, Any]] = {"reservoir": {"update": "batch"}}
"""What a buffer's name says beyond its selector: a reservoir is a random memory that every batch updates."""
