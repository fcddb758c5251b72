"""What steps are taken on, noted step by step."""

from __future__ import annotations

import torch

from clsim.checks.samples import exemplars
from clsim.training.outputs import Taken


def test_what_was_taken_is_counted_beyond_the_room_that_there_was():
    rng = torch.Generator().manual_seed(0)
    taken, index, labels, right = Taken(), [], [], 0
    for _ in range(700):  # 700 × 13 samples: the room doubles twice
        rows = torch.randint(2000, (13,), generator=rng)
        samples = exemplars(torch.zeros(13, 2), rows % 7)
        samples = type(samples)(**{**samples.columns(), "index": rows})
        said = torch.randint(7, (13,), generator=rng)
        taken.add(samples, torch.nn.functional.one_hot(said, 7).float())
        index += rows.tolist()
        labels += (rows % 7).tolist()
        right += int((said == rows % 7).sum())
    assert taken.index.tolist() == index
    assert taken.y.tolist() == labels
    assert taken.counts() == {"trained": 9100, "different": len(set(index)), "learnt": right / 9100}


def test_nobody_knows_what_was_learnt_where_a_step_told_no_logits():
    taken, samples = Taken(), exemplars(torch.zeros(3, 2), torch.tensor([0, 1, 2]))
    assert taken.counts() == {"trained": 0, "different": 0, "learnt": None}
    taken.add(samples, torch.eye(3))
    assert taken.counts()["learnt"] == 1
    taken.add(samples, None)
    assert taken.counts() == {"trained": 6, "different": 3, "learnt": None}
