"""What a run has spent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Cost:
    """What a run has spent; shared by the loop, the learner and every pool.

    Attributes:
        steps: optimizer steps.
        proxy_steps: optimizer steps of the proxies that a selector asked for.
        forward_passes: samples passed forward through the net (training, selection and evaluation together).
        train_seconds: in the learner. Selection and evaluation are counted apart.
        peak_bytes: the most that was in use, of the device or of the process.
        memory_bytes: of the exemplars; state_bytes: of what else the learner keeps beside its net (of ``net_bytes``).
    """

    steps: int = 0
    proxy_steps: int = 0
    forward_passes: int = 0
    train_seconds: float = 0.0
    select_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    peak_bytes: int = 0
    memory_bytes: int = 0
    state_bytes: int | None = 0
    net_bytes: int = 0
