"""Logistic regression on features, as a net with a linear head: for pools of features made elsewhere."""

from __future__ import annotations

import numpy as np
import torch

from clsim.models import nets
from clsim.pool.exemplars import Exemplars, groups
from clsim.pool.scoring import History


class LogisticTrainer:
    """Trainer of nets on vectors: the body passes a vector on, the head is a logistic regression. Final.

    The regression is scikit-learn's (L2 penalty, C = 1), fitted to vectors that are scaled to mean 0 and deviation 1 of
    each dimension over all samples, labelled or not. The head undoes the scaling, so that features are the vectors as
    given. Of two classes, the logits are ∓z/2, whose softmax is the regression's sigmoid of z.

    The members of a committee would all be the same; each is fitted to a bootstrap of the labelled samples instead, n_c
    draws with replacement from the n_c of class c.

    Source: query by bagging, Abe & Mamitsuka, Query Learning Strategies Using Boosting and Bagging (ICML 1998); there
        the draws are not by class.

    Args:
        width: number of dimensions.
        classes: number of classes, two or more; each occurs among the labelled samples.
        rng: draws the bootstraps, on the CPU.
        device: the device of the nets.
    """

    def __init__(self, width: int, classes: int, rng: torch.Generator, device: torch.device) -> None:
        self._width, self._classes, self._rng, self._device = width, classes, rng, device

    def fresh(self, seed: int) -> nets.Net:
        """Make a net with a head that is drawn, not fitted."""
        visible = torch.ones(1, self._classes, dtype=torch.bool)
        return nets.build(nets.linear, (self._width,), visible, seed, self._device)

    def fit(self, samples: Exemplars) -> nets.Net:
        """Fit a net to all labelled samples."""
        return self._fitted(samples, (samples.y >= 0).nonzero().flatten())

    def train(self, samples: Exemplars) -> tuple[nets.Net, History]:
        """Fit a net to a bootstrap of the labelled samples; nothing is trained in epochs, so there are no dynamics."""
        drawn = [
            own[torch.randint(len(own), (len(own),), generator=self._rng).to(own.device)] for own in groups(samples)
        ]
        return self._fitted(samples, torch.cat(drawn)), no_dynamics(samples)

    def _fitted(self, samples: Exemplars, rows: torch.Tensor) -> nets.Net:
        from sklearn.linear_model import LogisticRegression

        x = samples.x.cpu().numpy()
        mean, spread = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
        spread[spread == 0] = 1
        chosen = rows.cpu().numpy()
        model = LogisticRegression(max_iter=1000).fit((x[chosen] - mean) / spread, samples.y[rows].cpu().numpy())
        weight, bias = model.coef_ / spread, model.intercept_ - (model.coef_ / spread) @ mean
        if len(weight) == 1:
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        net = self.fresh(0)
        with torch.no_grad():
            net.head.weight.copy_(torch.from_numpy(weight))
            net.head.bias.copy_(torch.from_numpy(bias))
        return net


def no_dynamics(samples: Exemplars) -> History:
    """Make the dynamics of samples that were not tested: one epoch, nothing right, losses and errors NaN."""
    unknown = torch.full((1, len(samples)), torch.nan, device=samples.device)
    return History(unknown > 0, unknown, unknown)
