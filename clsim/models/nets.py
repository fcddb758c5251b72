"""Networks: a body that makes features, and one linear head over all classes.

A model is a function of the input's shape, ``(c, h, w)`` or ``(d,)``, that returns a module which maps
(n, \\*shape) to (n, width). Its keyword arguments are the keys of ``[model.options]``. A user's own model is
named ``module:attr`` or ``./file.py:attr``.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsim.errors import InputError, raised
from clsim.randomness import own_draws
from clsim.spec.kinds import Count, Width

Shape = tuple[int, ...]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Pass:
    """The outputs of one forward pass, with their gradient where the pass had one.

    Attributes:
        maps: the output of each of :attr:`Net.taps`, (n, channels, \\*pixels) or (n, width).
        features: (n, width), what the head sees.
    """

    maps: tuple[Tensor, ...]
    features: Tensor


class Net(nn.Module):
    """A body that makes features, and a linear head. Final.

    Args:
        body: maps (n, \\*shape) to features (n, width).
        width: number of features.
        visible: bool (tasks, classes): which logits a task may use. Where the task is unknown, all are true.
        shapes: the shape of one sample before the body's first layer and after each; empty: the body has no taps.
        shape: the shape of one sample; empty: not known.

    Attributes:
        frozen: whether the body is kept as it is; see :meth:`freeze`.
        taps: the layers of the body, counted from 0, whose outputs can be read (:meth:`tapped`): the last layer of each
            block that has weights. A block begins at each layer that changes the shape of its input, and at each fully
            connected one: a tap is a stage of a ResNet, a block of a convolutional net before its pooling, or a hidden
            layer. A body has blocks if it is an ``nn.Sequential``.
    """

    visible: Tensor

    def __init__(
        self, body: nn.Module, width: int, visible: Tensor, shapes: Sequence[Shape] = (), shape: Shape = ()
    ) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, visible.shape[1])
        self.register_buffer("visible", visible, persistent=False)
        self.masked = not bool(visible.all())
        self.frozen = False
        self.shapes, self.shape = tuple(shapes), shape
        self.taps = _ends(_layers(body), self.shapes) if shapes else ()
        self._passes: list[Pass] | None = None
        self._answer: tuple[Tensor, Tensor] | None = None

    def freeze(self) -> None:
        """Keep the body as it is: no gradient reaches its weights, and it stays in eval mode."""
        self.frozen = True
        self.body.requires_grad_(False)
        self.body.eval()

    def train(self, mode: bool = True) -> Net:
        """Switch between training and eval mode; a frozen body stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.body.eval()
        return self

    @contextmanager
    def tapped(self) -> Iterator[list[Pass]]:
        """Note the outputs of each forward pass that is made inside, in order; no hook stays behind."""
        before, self._passes = self._passes, []
        try:
            yield self._passes
        finally:
            self._passes = before

    @property
    def noting(self) -> bool:
        """Whether passes are being noted, inside :meth:`tapped`."""
        return self._passes is not None

    @contextmanager
    def answering(self, x: Tensor, features: Tensor) -> Iterator[None]:
        """Let :meth:`features` return these, once, for the tensor ``x`` itself: they have been computed elsewhere.

        Raises:
            RuntimeError: if nobody asks for them.
        """
        self._answer = x, features
        try:
            yield
            if self._answer is not None:
                raise RuntimeError("nobody asks for the features of the whole batch, which have been computed")
        finally:
            self._answer = None

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features (n, width)."""
        if self._answer is not None and self._answer[0] is x:
            (_, features), self._answer = self._answer, None
            return features
        if self._passes is None:
            return self.body(x)
        if not self.taps:
            self._passes.append(Pass((), self.body(x)))
            return self._passes[-1].features
        maps = []
        for i, layer in enumerate(_layers(self.body)):
            x = layer(x)
            if i in self.taps:
                maps.append(x)
        self._passes.append(Pass(tuple(maps), x))
        return x

    def logits(self, features: Tensor, task: Tensor) -> Tensor:
        """Compute float32 (n, classes) from features; −inf where the task of the sample does not have the class."""
        logits = self.head(features).float()
        return logits.masked_fill(~self.visible[task], -math.inf) if self.masked else logits

    def among(self, labels: Iterable[int]) -> Net:
        """Return a net of the same body and head whose tasks see these classes alone.

        A task that has none of them sees all of its classes, as before.
        """
        known = torch.zeros_like(self.visible[0])
        known[torch.tensor(list(labels), dtype=torch.int64, device=known.device)] = True
        visible = self.visible & known
        other = copy.copy(self)
        other._buffers = dict(self._buffers)  # a copy of a module shares them
        other.visible = torch.where(visible.any(1, keepdim=True), visible, self.visible)
        other.masked = not bool(other.visible.all())
        return other

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        """Compute the logits of normalised inputs (n, \\*shape), each under its own task (n,)."""
        return self.logits(self.features(x), task)


def _layers(body: nn.Module) -> list[nn.Module]:
    """List the layers of a body that passes its input from one to the next; none if it is of another kind."""
    plain = isinstance(body, nn.Sequential) and type(body).forward is nn.Sequential.forward
    return list(body) if plain else []  # type: ignore[call-overload]


def _ends(layers: Sequence[nn.Module], shapes: Sequence[Shape]) -> tuple[int, ...]:
    """Find the last layer of each block that has weights; see :attr:`Net.taps`."""
    begins = [i for i, layer in enumerate(layers) if shapes[i] != shapes[i + 1] or isinstance(layer, nn.Linear)]
    blocks = itertools.pairwise([*begins, len(layers)])
    return tuple(end - 1 for begin, end in blocks if any(True for m in layers[begin:end] for _ in m.parameters()))


def build(model: Callable[..., nn.Module], shape: Shape, visible: Tensor, seed: int, device: torch.device) -> Net:
    """Build a net with weights drawn from ``seed`` alone; the global generator stays as it was.

    Args:
        model: a function of the shape, its options already bound.
        visible: see :class:`Net`.

    Raises:
        InputError: if the body does not map a batch to (n, width).
    """
    with own_draws(seed):
        try:
            body = model(shape)
            if not isinstance(body, nn.Module):
                raise InputError(f"model: it made a {type(body).__name__}, allowed: a torch.nn.Module")
            with evaluating(body), torch.no_grad():
                out, shapes = _traced(body, torch.zeros(2, *shape))
        except InputError:
            raise
        except Exception as error:  # the model may be a user's own
            raise InputError(f"model: with inputs of shape {shape} it {raised(error)}") from error
        if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != 2:
            found = f"have shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"are a {type(out).__name__}"
            raise InputError(f"model: features of 2 samples {found}, allowed: a tensor (2, width)")
        return Net(body, out.shape[1], visible.cpu(), shapes, tuple(shape)).to(device)


def _traced(body: nn.Module, x: Tensor) -> tuple[Tensor, list[Shape]]:
    """Pass samples through a body; return the result, and the shapes of one sample before and after each layer.

    There are no shapes if the body is not a sequence of layers that each return one row a sample.
    """
    outs = [x]
    for layer in _layers(body):
        outs.append(layer(outs[-1]))
    if len(outs) == 1:
        return body(x), []
    rows = all(isinstance(out, Tensor) and out.ndim > 1 and len(out) == len(x) for out in outs)
    return outs[-1], [tuple(out.shape[1:]) for out in outs] if rows else []


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode inside; afterwards every submodule is back in the mode that it had."""
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        yield
    finally:
        for m in training:
            m.training = True


@torch.no_grad()
def renew_statistics(net: Net, batches: Iterable[Tensor]) -> int:
    """Compute batch norm's running statistics anew; return how many samples were passed forward for it.

    They become the means of the batches' own statistics, each weighted by its number of samples. Everything but batch
    norm is in eval mode, so that dropout leaves nothing out. A net without batch norm passes nothing forward.

    Args:
        net: the net; its weights stay.
        batches: normalised inputs (n, \\*shape).

    Source: Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization (UAI 2018), section 3.2.
    """
    norms = [m for m in net.modules() if isinstance(m, _NORMS) and m.track_running_stats]
    if not norms:
        return 0
    kept, passed = [norm.momentum for norm in norms], 0
    with evaluating(net):
        for norm in norms:
            norm.reset_running_stats()
            norm.training = True
        for x in batches:
            passed += len(x)
            for norm in norms:
                norm.momentum = len(x) / passed
            net.features(x)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    return passed


def linear(shape: Shape) -> nn.Module:
    """A body without weights: the head sees the flattened input. For embeddings of a frozen backbone."""
    return nn.Flatten()


def mlp(
    shape: Shape,
    *,
    hidden: Sequence[int] = (400, 400),
    dropout: float = 0.0,
    norm: Literal["none", "batch"] = "none",
) -> nn.Module:
    """Fully connected layers with ReLU.

    Args:
        hidden: width of each layer.
        norm: ``batch``: each layer has batch norm (ε 1e-6) in place of a bias, as the net of GDumb (Prabhu, Torr &
            Dokania, ECCV 2020); that net normalises its logits too, which is left out.
        dropout: share of each layer's outputs that a training step leaves out.
    """
    if norm not in ("none", "batch"):
        raise InputError(f"model.options.norm: found {norm!r}, allowed: none, batch")
    widths = [math.prod(shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(widths):
        normed = [VectorNorm(after, eps=1e-6)] if norm == "batch" else []
        linear = nn.Linear(before, after, bias=not normed)
        layers += [linear, *normed, nn.ReLU(inplace=True), *dropout_layers(dropout)]
    return nn.Sequential(*layers)


def convnet3(shape: Shape, *, width: Width = 128, norm: Literal["instance", "batch"] = "instance") -> nn.Module:
    """Three blocks of 3 × 3 convolution, instance norm (or batch norm), ReLU, 2 × 2 average pooling.

    Images of 28 × 28 pixels are padded to 32 × 32 by the first convolution, as in the source.

    Args:
        width: number of channels of each block.
        norm: the norm of each block: ``instance``, of each channel of an image on its own, or ``batch``.

    Source: the ConvNet of Zhao, Mopuri & Bilen, Dataset Condensation with Gradient Matching (ICLR 2021).
    """
    channels = channels_of(shape, "convnet3")
    blocks: list[nn.Module] = []
    for i, before in enumerate((channels, width, width)):
        blocks += [
            nn.Conv2d(before, width, 3, padding=3 if not i and shape[1:] == (28, 28) else 1),
            InstanceNorm(width) if norm == "instance" else nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(2),
        ]
    return nn.Sequential(*blocks, nn.Flatten())


def pooled_convnet3(shape: Shape, *, width: Width = 16) -> nn.Module:
    """Three blocks of 3 × 3 convolution, batch norm, ReLU, 2 × 2 max pooling; then the mean over pixels.

    The blocks have ``width``, 2 · ``width`` and 4 · ``width`` channels, so that a head sees 4 · ``width`` features
    without their places: it tells apart only the classes that the body has learnt to tell apart.

    Args:
        width: channels of the first block.
    """
    before = channels_of(shape, "pooled-convnet3")
    blocks: list[nn.Module] = []
    for channels in (width, 2 * width, 4 * width):
        blocks += [
            nn.Conv2d(before, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]
        before = channels
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def strided_convnet3(shape: Shape, *, width: Width = 24, grid: Count = 4) -> nn.Module:
    """Three blocks of 3 × 3 convolution in steps of two pixels, batch norm, ReLU; the features keep their places.

    The blocks have ``width``, 2 · ``width`` and 4 · ``width`` channels. What comes out of 28 or 32 pixels is 4 × 4
    pixels; larger maps are averaged down to ``grid`` × ``grid``. So distances tell images apart by what is where, even
    before the net has learnt anything, and a step costs a fraction of one of a net that pools.

    Args:
        width: channels of the first block.
        grid: side of the last map at most.
    """
    before = channels_of(shape, "strided-convnet3")
    blocks: list[nn.Module] = []
    for channels in (width, 2 * width, 4 * width):
        blocks += [
            nn.Conv2d(before, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
        before = channels
    size = tuple(min(-(-side // 8), grid) for side in shape[1:])
    if any(-(-side // 8) > grid for side in shape[1:]):
        blocks.append(nn.AdaptiveAvgPool2d(size))
    return nn.Sequential(*blocks, nn.Flatten())


class VectorNorm(nn.BatchNorm1d):
    """Batch norm of vectors (n, width); a batch of one, which has no deviation, uses the running statistics. Final."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, width)."""
        if len(x) > 1:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class InstanceNorm(nn.GroupNorm):
    """Norm of each channel on its own: γ·(x − μ)/√(σ² + ε) + β, μ and σ² over the channel's pixels. Final."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, c, h, w); shape and memory format stay."""
        c, h, w = x.shape[1:]
        # torch's own kernels take one channel at a time if channels-last images are small, and in the backward pass
        # of bf16, which is 2 to 20 × slower
        slow = h * w < 1024 or (x.dtype == torch.bfloat16 and torch.is_grad_enabled())
        if x.device.type != "cpu" or not slow or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        about_mean = x - _pixel_mean(x)
        scale = self.weight.view(1, c, 1, 1) * torch.rsqrt(_pixel_mean(about_mean.square()) + self.eps)
        # returns no view: the ReLU after it works in place, and on a view that would copy all in the backward pass
        return torch.addcmul(self.bias.to(x.dtype).view(1, c, 1, 1), about_mean, scale.to(x.dtype))


def _pixel_mean(x: Tensor) -> Tensor:
    """Mean over pixels: (n, c, h, w), channels last → (n, c, 1, 1)."""
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(n, h * w, c).mean(1).view(n, c, 1, 1)


def dropout_layers(share: float) -> list[nn.Module]:
    """Make a list of one dropout layer, or of none if the share is 0."""
    if not 0 <= share < 1:
        raise InputError(f"model.options.dropout: found {share:g}, allowed: a share from 0 to below 1")
    return [nn.Dropout(share)] if share else []


def channels_of(shape: Shape, name: str) -> int:
    """Return the number of channels of images of this shape; refuse vectors."""
    if len(shape) != 3:
        raise InputError(f"model.name: {name} needs images, found vectors of width {shape[0]}; allowed: linear, mlp")
    return shape[0]
