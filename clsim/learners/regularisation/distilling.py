"""Learners that distil the old net into the new one on new samples: LwF, EBLL, LwM."""

from __future__ import annotations

import dataclasses
import math

from clsim.errors import InputError, at_least
from clsim.learners.sgd import Sgd
from clsim.objectives.among import Among
from clsim.objectives.attention import Attention
from clsim.objectives.codes import Autoencoder, Encoded
from clsim.objectives.distillation import Distillation
from clsim.training.contract import Learner, Setup


def lwf(setup: Setup, *, strength: float = 1.0, temperature: float = 2.0, among: Among | None = None) -> Learner:
    """Learning without forgetting: L = CE + λ Σ_k KL(softmax(z*_k / T) ‖ softmax(z_k / T)), on new samples.

    z*_k are the logits of old task k's classes by the net as it was after the last experience, z_k the new net's.
    Where the task is unknown, all old classes form one group. CE is the paper's new-task loss, which ranges over the
    new task's own classes: over all classes it would lower the old logits on every sample, against the distillation.
    As in the survey, the tasks' terms are summed and not averaged, and there is no factor T²; see
    :meth:`clsim.objectives.distillation.OldLogits.divergence`. All weights learn from the first step on: the paper's
    warm-up of the new head is left out.

    Args:
        setup: net, memory, transform, generators.
        strength: The weight λ of the distillation; the default is the paper's. The survey's search begins with 10,
            which needs learning rates of 0.01 or less.
        temperature: The temperature T.
        among: The classes that the cross-entropy of a new sample ranges over; see
            :data:`clsim.objectives.among.Among`. By default those of the experience, or all classes where a memory is
            replayed, since its exemplars then hold the old classes against the new ones.

    Cost: 1 M kept (the old net); one more forward pass for each new sample.

    Source: Li & Hoiem, Learning without Forgetting (ECCV 2016), eq. 2-4; De Lange et al., A continual learning survey
    (TPAMI 2021)
    """
    at_least(0, "lwf: ", strength=strength)
    _check_temperature("lwf", temperature)
    objective = Distillation(setup, strength=strength, temperature=temperature)
    return Sgd(setup, objective=objective, among=_new_task(setup, among))


def ebll(
    setup: Setup,
    *,
    strength: float = 1.0,
    code_strength: float = 1.0,
    temperature: float = 2.0,
    autoencoder: Autoencoder = Autoencoder(),
    among: Among | None = None,
) -> Learner:
    """Encoder based lifelong learning: LwF, and a penalty on moving the codes that old tasks' autoencoders make.

    L = CE + λ · LwF's distillation + α Σ_k mean (c_k(h) − c_k(h*))², with h the features before the head, h* those of
    the old net, and c_k the sigmoid codes of an undercomplete autoencoder, learnt on the features of task k at its
    end; see :class:`clsim.objectives.codes.Encoded` and, for its loss, :class:`clsim.objectives.codes.Autoencoder`.
    As in the survey α has no ½ and the square is a mean, and the warm-up of the new head is left out.

    Args:
        setup: net, memory, transform, generators.
        strength: The weight λ of the distillation; see ``lwf``.
        code_strength: The weight α of the distance between codes.
        temperature: The temperature T of the distillation.
        autoencoder: see :class:`~clsim.objectives.codes.Autoencoder`.
        among: The classes that the cross-entropy of a new sample ranges over; see ``lwf``.

    Cost: 1 M kept (the old net) and an encoder for each experience, (features + 1) × code.

    Source: Rannen et al., Encoder Based Lifelong Learning (ICCV 2017); De Lange et al., A continual learning survey
    (TPAMI 2021)
    """
    at_least(0, "ebll: ", strength=strength, code_strength=code_strength)
    at_least(0, "ebll: ", reconstruction=autoencoder.reconstruction, code=autoencoder.code)
    at_least(0, "ebll: ", epochs=autoencoder.epochs, rate=autoencoder.rate)
    _check_temperature("ebll", temperature)
    width = setup.net.head.in_features
    if autoencoder.code >= width:
        raise InputError(f"ebll: code: found {autoencoder.code}, allowed: fewer than the net's {width} features, or 0")
    if autoencoder.batch_size < 1:
        raise InputError(f"ebll: batch_size: found {autoencoder.batch_size}, allowed: 1 and more")
    code = autoencoder.code or (100 if width > 100 else max(width // 2, 1))
    autoencoder = dataclasses.replace(autoencoder, code=code)
    objective = Encoded(
        setup, strength=strength, code_strength=code_strength, temperature=temperature, autoencoder=autoencoder
    )
    return Sgd(setup, objective=objective, among=_new_task(setup, among))


def lwm(
    setup: Setup,
    *,
    strength: float = 1.0,
    attention_strength: float = 0.1,
    temperature: float = 2.0,
    among: Among | None = None,
) -> Learner:
    """Learning without memorizing: LwF, and a penalty on moving attention maps.

    L = CE + β · LwF's distillation + γ · mean_i ‖q_i − q*_i‖₁, with q the attention maps by Grad-CAM for the old
    class that is likeliest to the old net; see :class:`clsim.objectives.attention.Attention`. The paper gives no
    values of β and γ. For convolutional nets.

    Args:
        setup: net, memory, transform, generators.
        strength: The weight β of the distillation.
        attention_strength: The weight γ of the distance between the maps. The maps have length 1, so that slopes are
            steep where the unscaled maps are small.
        temperature: The temperature T of the distillation.
        among: The classes that the cross-entropy of a new sample ranges over; see ``lwf``.

    Cost: 1 M kept (the old net).

    Source: Dhar et al., Learning without Memorizing (CVPR 2019), eq. 1-4
    """
    at_least(0, "lwm: ", strength=strength, attention_strength=attention_strength)
    _check_temperature("lwm", temperature)
    objective = Attention(setup, strength=strength, attention_strength=attention_strength, temperature=temperature)
    return Sgd(setup, objective=objective, among=_new_task(setup, among))


def _new_task(setup: Setup, among: Among | None) -> Among:
    """Return the choice of classes: the given one, or that of the paper's new-task loss, if there are no exemplars.

    Where a task or a domain has all classes that are compared, the choice changes nothing, and is left at ``all``.
    """
    if among is not None:
        return among
    alone = setup.spec.memory.buffer == "none" and setup.spec.stream.setting == "class"
    return "experience" if alone else "all"


def _check_temperature(learner: str, temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise InputError(f"{learner}: temperature: found {temperature:g}, allowed: a finite number above 0")
