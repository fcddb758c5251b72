"""Gradients of all classes: a pass for each class, against one pass for all. ConvNet-3, 10 classes of 28 × 28 pixels.

python -m benchmarks.class_gradients [width] [images a class] [threads] [repeats]

One pass for all is either torch.func's vmap over the classes, or a single backward pass down to the layers' outputs,
from which the weights' gradients are made class by class. All three give the same numbers, which is checked first. They
take turns, and their medians over the rounds are compared.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsim.models import nets

CLASSES, CPU = 10, torch.device("cpu")
Gradients = list[Tensor]


def a_pass_each(net: nets.Net, x: Tensor, y: Tensor) -> Gradients:
    weights = [p for p in net.parameters() if p.ndim > 1]
    found = [
        torch.autograd.grad(F.cross_entropy(net.head(net.body(part)), labels), weights)
        for part, labels in zip(x, y, strict=True)
    ]
    return [torch.stack(of_one) for of_one in zip(*found, strict=True)]


def vmapped(net: nets.Net, x: Tensor, y: Tensor) -> Gradients:
    whole = nn.Sequential(net.body, net.head)
    parameters = dict(whole.named_parameters())
    weights = {name: p for name, p in parameters.items() if p.ndim > 1}

    def loss(chosen: dict[str, Tensor], part: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(whole, parameters | chosen, (part,)), labels)

    return list(torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(weights, x, y).values())


def factorised(net: nets.Net, x: Tensor, y: Tensor) -> Gradients:
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []
    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [m.register_forward_hook(lambda m, given, out: seen.append((m, given[0].detach(), out))) for m in layers]
    loss = F.cross_entropy(net.head(net.body(x.flatten(0, 1))), y.flatten(), reduction="sum") / x.shape[1]
    for hook in hooks:
        hook.remove()
    outputs, found = torch.autograd.grad(loss, [out for _, _, out in seen]), []
    for (layer, given, _), output in zip(seen, outputs, strict=True):
        pairs = list(zip(given.split(x.shape[1]), output.split(x.shape[1]), strict=True))
        if isinstance(layer, nn.Conv2d):
            shape, padding = layer.weight.shape, layer.padding
            found.append(torch.stack([nn.grad.conv2d_weight(a, shape, b, padding=padding) for a, b in pairs]))
        else:
            found.append(torch.stack([b.T @ a for a, b in pairs]))
    return found


def main() -> None:
    width, each, threads, repeats = ([int(arg) for arg in sys.argv[1:]] + [32, 64, 2, 5][len(sys.argv) - 1 :])[:4]
    torch.set_num_threads(threads)
    net = nets.build(lambda shape: nets.convnet3(shape, width=width), (1, 28, 28), torch.ones(1, CLASSES) > 0, 0, CPU)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(CLASSES, each, 1, 28, 28, generator=rng)
    y = torch.arange(CLASSES)[:, None].expand(-1, each).contiguous()
    contestants: dict[str, Callable[[nets.Net, Tensor, Tensor], Gradients]] = {
        "a pass for each class": a_pass_each,
        "torch.func, vmap over classes": vmapped,
        "one pass, weights class by class": factorised,
    }
    for compute in contestants.values():
        torch.testing.assert_close(compute(net, x, y), a_pass_each(net, x, y), rtol=1e-3, atol=1e-5)
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, compute in contestants.items():
            begun = time.perf_counter()
            compute(net, x, y)
            seconds[name].append(time.perf_counter() - begun)
    first = statistics.median(seconds["a pass for each class"])
    print(f"width {width}, {each} images a class, {threads} threads, medians of {repeats}")
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        print(f"{name:34} {1000 * middle:8.1f} ms   speed against the loop of classes {first / middle:5.2f}")


if __name__ == "__main__":
    main()
