"""The objective of learning without memorizing: the attention maps of the new net stay those of the old one."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.models.nets import Net
from clsim.objectives.distillation import Taught, mean_of_new
from clsim.objectives.replay import cross_entropy
from clsim.training.contract import Batch, Setup, Terms


class Attention(Taught):
    """L = CE + β · LwF's distillation + γ · mean_i ‖q_i − q*_i‖₁, on new samples. Final.

    q are attention maps by Grad-CAM, as vectors of length 1 (n, positions): q = ReLU(Σ_k w_k A_k) / ‖·‖₂, with A the
    last feature maps, b the old class that is likeliest to the old net, and w_k the mean over positions of ∂z_b/∂A_k.
    q* are the old net's maps for the same class. The gradient passes through A and through w, so that a step
    differentiates twice. In the first experience the loss is CE alone.

    The last feature maps are the last output of a layer of the body that has more than one position, so the body must
    be a sequence of layers. With a memory, CE covers new ∪ replayed samples.

    Args:
        setup: net, transform, counters.
        strength: The weight β of the distillation.
        attention_strength: The weight γ of the distance between the maps.
        temperature: The temperature T of the distillation.

    Raises:
        InputError: if the net has no feature maps.

    Cost: 1 M kept. A step passes back through the last layers twice more.
    """

    def __init__(self, setup: Setup, *, strength: float, attention_strength: float, temperature: float) -> None:
        super().__init__(setup)
        self._setup = setup
        self._strength = strength
        self._attention_strength = attention_strength
        self._temperature = temperature
        if setup.acquisition is not None and setup.acquisition.joins:
            raise InputError(
                f"lwm: found the acquisition {type(setup.acquisition).__name__}, whose terms need a pass of the whole "
                "net, and lwm makes it in two parts; allowed: an acquisition without terms"
            )
        convolutional = any(isinstance(m, nn.Conv2d) for m in setup.net.body.modules())
        maps = [i for i, shape in enumerate(setup.net.shapes) if len(shape) == 3 and math.prod(shape[1:]) > 1]
        self.layers = max(maps, default=0)  # the number of layers of the body up to the maps
        if not convolutional or not self.layers:
            raise InputError(
                f"lwm: model.name: found {setup.spec.model.name!r}, which has no feature maps to attend to; allowed: "
                "convnet3, a VGG or ResNet net, or a convolutional net whose body is an nn.Sequential"
            )

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """Return the cross-entropy and, from the second experience on, distillation and attention."""
        teacher = self.teacher.net
        if teacher is None:
            return cross_entropy(net(batch.x, batch.task), batch)
        maps = _sequence(net)[: self.layers](batch.x)
        features = _sequence(net)[self.layers :](maps)
        terms = cross_entropy(net.logits(features, batch.task), batch)

        self._setup.cost.forward_passes += batch.new
        with torch.no_grad():
            old_maps = _sequence(teacher)[: self.layers](batch.x[: batch.new])
        old_maps.requires_grad_()
        old = _sequence(teacher)[self.layers :](old_maps)
        away = self.teacher.divergence(net, features[: batch.new], old.detach(), batch, self._temperature)
        terms["distillation"] = self._strength * away

        old_logits = teacher.head(old).float()
        known = torch.cat(self.teacher.groups)
        likeliest = known[old_logits.detach().index_select(1, known).argmax(1)][:, None]
        target = attention(old_maps, old_logits.gather(1, likeliest), create_graph=False).detach()
        logits = net.head(features[: batch.new]).float()
        seen = attention(maps, logits.gather(1, likeliest), create_graph=True)[: batch.new]
        terms["attention"] = self._attention_strength * mean_of_new((seen - target).abs().sum(1), batch)
        return terms


def attention(maps: Tensor, score: Tensor, *, create_graph: bool) -> Tensor:
    """Return the Grad-CAM maps of a score, (n, h · w), each row of length 1.

    A map is ReLU(Σ_k w_k A_k) with w_k = mean over positions of ∂score/∂A_k. A row is 0 where no position raises the
    score.

    Args:
        maps: The feature maps A, float (n, k, h, w).
        score: The scores, each computed from the maps of its own sample.
        create_graph: Whether the result can be differentiated.

    Source: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks (ICCV 2017), eq. 1-2.
    """
    (slope,) = torch.autograd.grad(score.sum(), maps, create_graph=create_graph, retain_graph=True)
    weight = slope.float().mean((2, 3), keepdim=True)
    return F.normalize((weight * maps.float()).sum(1).relu().flatten(1), dim=1)


def _sequence(net: Net) -> nn.Sequential:
    """Return the layers of the body; :class:`Attention` accepts no other body."""
    return net.body  # type: ignore[return-value]
