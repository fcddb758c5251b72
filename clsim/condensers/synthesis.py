"""The frame of every condenser: a method changes synthetic images step by step.

A method is a function (or an object of a final class) that is called in each iteration with the synthetic and the real
images, and steps the images' optimizer. Methods differ in the nets that they use and in what they compare. Every
iteration draws from generators that depend on the seed and the iteration's number alone, so that images, optimizer
state and number are enough to resume.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from clsim.condensers.drawn import Fresh, builder
from clsim.data import siamese, tiles
from clsim.errors import InputError
from clsim.models.nets import Net
from clsim.pool.exemplars import Exemplars
from clsim.pool.exemplars import groups as classes
from clsim.pool.pool import Pool
from clsim.randomness import derive, reseed
from clsim.selectors.combinators import quotas
from clsim.spec import registry

Augment = Callable[[Tensor], Tensor]


class Material:
    """The real samples, class by class, and random nets: what a method works with. Final.

    The classes are those of the pool's labelled samples that get a synthetic image; a label that occurs in two tasks
    is a class in each. A method refers to them by position, 0 … C − 1.

    Args:
        pool: the pool of real samples.
        members: the rows of each class in the pool.
        seed: seed of everything that is drawn.
        operations: operations of the siamese augmentation, names of :data:`clsim.data.siamese.OPERATIONS`.
        model: architecture of the nets; see :class:`Making`.

    Attributes:
        pool: the pool, for its ``prepare``, ``precision`` and ``cost``.
        labels, tasks: int64 (C,), the label and the task of each class.
        columns: int64 (k,), the labels that occur.
        targets: int64 (C,), the position of each class's label in ``columns``.
        counts: number of real samples of each class.
        operations: operations of the siamese augmentation.
        rng: generator on the CPU, seeded anew in each iteration.
        augment: generator on the device of the images, seeded anew in each iteration.
    """

    def __init__(
        self, pool: Pool, members: Sequence[Tensor], seed: int, operations: Sequence[str] = (), model: str = ""
    ) -> None:
        self.pool = pool
        self.counts = [len(rows) for rows in members]
        firsts = torch.stack([rows[0] for rows in members]) if members else pool.data.y[:0]
        self.labels, self.tasks = pool.data.y[firsts], pool.data.task[firsts]
        self.columns, self.targets = self.labels.unique(return_inverse=True)
        self.rng = torch.Generator()
        self.augment = torch.Generator(pool.data.device)
        self.operations = tuple(operations)
        self._members, self._seed = members, seed
        self._build = builder(pool, model)
        self._fresh = Fresh(self._build)

    def begin(self, iteration: int) -> None:
        """Seed every generator for an iteration; torch's own too, which layers such as dropout use."""
        for name, rng in (("cpu", self.rng), ("device", self.augment)):
            rng.manual_seed(derive(self._seed, f"{name} {iteration}"))
        reseed(derive(self._seed, f"torch {iteration}"), self.pool.data.device)

    def seed(self, purpose: str) -> int:
        """Return a seed that is the same in every iteration, for what a method makes once."""
        return derive(self._seed, purpose)

    def fresh(self) -> Net:
        """Return a net with new random weights, in train mode; it is the same object each time."""
        return self._fresh(int(torch.randint(2**62, (), generator=self.rng)))

    def build(self, seed: int) -> Net:
        """Build a net of its own with weights drawn from ``seed``, for a method that keeps it."""
        return self._build(seed)

    def change(self, n: int | None = None) -> Augment:
        """Draw one augmentation. Calling it on real and on synthetic images changes both in the same way.

        Args:
            n: number of images, each of which gets its own parameters; None: all get the same.
        """
        return siamese.draw(self.operations, n, self.rng)

    def everything(self) -> tuple[Tensor, Tensor]:
        """Return the pool's rows of all real samples, one class after the other, and their classes' positions.

        Both are int64 (n,).
        """
        n = torch.tensor(self.counts, device=self.labels.device)
        return torch.cat(list(self._members)), torch.arange(len(n), device=n.device).repeat_interleave(n)

    def rows(self, position: int, size: int) -> Tensor:
        """Draw the pool's rows of ``size`` random samples of a class; all of them if it has no more."""
        drawn = torch.randperm(self.counts[position], generator=self.rng)[:size]
        return self._members[position][drawn.to(self.pool.data.device)]

    def real(self, size: int, positions: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Draw at most ``size`` real samples of each class, normalised.

        Args:
            positions: positions of the classes; None: all classes.

        Returns:
            The samples, float32 (n, \\*shape), one class after the other; and the positions of their classes,
            int64 (n,).
        """
        chosen = range(len(self.counts)) if positions is None else positions
        drawn = [self.rows(c, size) for c in chosen]
        sizes = torch.tensor([len(rows) for rows in drawn], device=self.pool.data.device)
        n = sum(len(rows) for rows in drawn)
        place = torch.tensor(list(chosen), device=sizes.device).repeat_interleave(sizes, output_size=n)
        return self.pool.prepare(self.pool.data.x[torch.cat(drawn)]), place


class Synthetic:
    """The synthetic images (or vectors) that are being optimised. Final.

    Args:
        images: float32 (m, \\*shape), the images at the start, in the normalised space of the pool's ``prepare``.
        place: int64 (m,), the position of each image's class in ``material``.
        factor: each stored image holds factor × factor small ones.
        lr, momentum: learning rate and momentum of the images' optimizer.
        clip: whether to keep every pixel in the range that can be stored; vectors have no such range.

    Attributes:
        images: the images as a parameter, one class after the other.
        sizes: number of images of each class, as a net sees them.
        optimizer: SGD on the images.
        still: whether no step moves them (a learning rate of 0). Then only their loss is wanted, and one comparison in
            a net is enough.
    """

    def __init__(
        self,
        images: Tensor,
        place: Tensor,
        material: Material,
        *,
        factor: int = 1,
        lr: float,
        momentum: float,
        clip: bool = False,
    ) -> None:
        self.images = nn.Parameter(images.detach().clone())
        self.place = place
        self.factor = factor
        self.sizes = (place.bincount(minlength=len(material.counts)) * factor**2).tolist()
        self.still = lr == 0
        self.optimizer = torch.optim.SGD([self.images], lr, momentum=momentum)
        self._material = material
        pool = material.pool
        like = pool.data.x[:1]
        most = 1 if like.is_floating_point() else 255
        # what prepare does to a value: shift + scale · value
        self._shift = pool.prepare(torch.zeros_like(like))
        self._scale = (pool.prepare(torch.full_like(like, most)) - self._shift) / most
        self._rounds = not like.is_floating_point()
        self._clips = clip and self._rounds
        self._clip()

    def __len__(self) -> int:
        return len(self.images)

    def decoded(self, rows: Tensor | slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Return the images as a net sees them (the tiles of each at full size), and their classes' positions.

        Gradients flow to :attr:`images`.
        """
        return tiles.apart(self.images[rows], self.factor), self.place[rows].repeat_interleave(self.factor**2)

    def of(self, position: int) -> tuple[Tensor, Tensor]:
        """Return the images of one class as a net sees them, as :meth:`decoded` does."""
        return self.decoded((self.place == position).nonzero().flatten())

    def step(self) -> None:
        """Take a step of the optimizer; then put every pixel back into its range, if they are clipped."""
        self.optimizer.step()
        self._clip()

    def _clip(self) -> None:
        if self._clips:
            with torch.no_grad():
                self.images.clamp_(self._shift, self._shift + 255 * self._scale)

    def stored(self) -> Tensor:
        """Return the images as they are stored, (m, \\*shape): uint8, rounded and clipped; vectors stay as they are."""
        values = (self.images.detach() - self._shift) / self._scale
        return values.round_().clamp_(0, 255).to(torch.uint8) if self._rounds else values.contiguous()

    def exemplars(self) -> Exemplars:
        """Return the images as exemplars: the first of each class, then the second of each, and so on.

        Their ``index`` is −1, since they are no samples of a data set.
        """
        rank = torch.cat([torch.arange(int(n)) for n in self.place.bincount()]) if len(self) else self.place.cpu()
        order = rank.argsort(stable=True).to(self.place.device)
        place = self.place[order]
        keys = torch.rand(len(self), generator=torch.Generator().manual_seed(self._material.seed("keys")))
        return Exemplars(
            self.stored()[order].contiguous(),
            self._material.labels[place],
            self._material.tasks[place],
            keys.to(place.device),
            torch.full_like(place, -1),
        )

    def copy(self, images: Tensor) -> Synthetic:
        """Return a copy with other images in the same places, which no step moves, to measure a loss with."""
        return Synthetic(images, self.place, self._material, factor=self.factor, lr=0.0, momentum=0.0)

    def restored(self) -> Tensor:
        """Return the images as :meth:`stored` leaves them, back in normalised space."""
        return self._shift + self._scale * self.stored().float()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of images and optimizer, as tensors and plain values."""
        return {"images": self.images.detach(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        with torch.no_grad():
            self.images.copy_(state["images"])
        self.optimizer.load_state_dict(state["optimizer"])


class Method(Protocol):
    """One iteration of a condenser: compares synthetic with real images, and steps ``synthetic.optimizer``.

    A method draws from ``material`` alone, and keeps nothing from one iteration to the next that does not follow from
    ``material.seed(…)``.
    """

    def __call__(self, iteration: int, synthetic: Synthetic, material: Material) -> Tensor:
        """Carry out ``iteration`` 0, 1, 2 …; return its loss, a detached scalar on the device."""


@dataclass(frozen=True)
class Making:
    """Options of every condenser: how images are made, whatever the method.

    Attributes:
        iterations: number of iterations of the method.
        lr: learning rate of the images' SGD.
        momentum: momentum of the images' SGD.
        start: the images at the start: ``real`` (random real samples), ``noise`` (N(0, 1) in normalised space), or the
            name of a selector, whose picks of each class they are, as in ``herding``.
        model: architecture of the random nets, a name of ``clsim list models``; empty: that of the run. Vectors always
            get the run's.
    """

    iterations: int
    lr: float
    momentum: float = 0.5
    start: str = "real"
    model: str = ""


def synthesise(
    pool: Pool,
    budget: int,
    method: Method,
    making: Making,
    *,
    augment: Sequence[str] = (),
    clip: bool = False,
    factor: int = 1,
    rng: torch.Generator,
) -> Exemplars:
    """Make min(budget, labelled samples) images by a method, balanced over the labelled classes of a pool.

    Args:
        augment: operations of the siamese augmentation; vectors have none.
        clip: whether to keep pixels in the range that can be stored, after each step.
        factor: each stored image holds factor × factor small ones; see :mod:`clsim.data.tiles`.

    Raises:
        InputError: if the pool cannot make nets, or an option is wrong.
    """
    if making.iterations < 0:
        raise InputError(f"iterations: found {making.iterations}, allowed: a whole number from 0")
    if budget and not making.lr > 0:
        raise InputError(f"lr: found {making.lr}, allowed: a number above 0")
    if not 0 <= making.momentum < 1:
        raise InputError(f"momentum: found {making.momentum}, allowed: from 0 to below 1")
    seed = int(torch.randint(2**62, (), generator=rng))
    rows = classes(pool.data)
    quota = quotas(torch.tensor([len(r) for r in rows], dtype=torch.int64), budget, rng).tolist()
    rows, quota = [r for r, q in zip(rows, quota, strict=True) if q], [q for q in quota if q]
    material = Material(pool, rows, seed, augment if pool.data.x.ndim == 4 else (), making.model)
    images = _start(material, rows, quota, making.start, factor)
    place = torch.arange(len(quota)).repeat_interleave(torch.tensor(quota, dtype=torch.int64)).to(pool.data.device)
    synthetic = Synthetic(images, place, material, factor=factor, lr=making.lr, momentum=making.momentum, clip=clip)
    with torch.random.fork_rng(devices=[pool.data.device] if pool.data.device.type == "cuda" else []):
        _iterate(method, synthetic, material, making.iterations if len(synthetic) else 0)
    return synthetic.exemplars()


def _iterate(method: Method, synthetic: Synthetic, material: Material, iterations: int) -> None:
    watch, done = material.pool.watch, 0
    state = None if watch is None else watch.resume()
    if state is not None:
        synthetic.load_state_dict(state)
        done = state["iteration"]
    for iteration in range(done, iterations):
        material.begin(iteration)
        loss = method(iteration, synthetic, material)
        if watch is not None:
            watch.step(iteration + 1, iterations, loss, synthetic)
    if watch is not None and len(synthetic):
        # both losses with the same nets, real samples and augmentation
        losses = []
        for images in (synthetic.images.detach(), synthetic.restored()):
            material.begin(iterations)
            losses.append(float(method(iterations, synthetic.copy(images), material)))
        watch.finish(*losses)


def _start(material: Material, members: Sequence[Tensor], quota: Sequence[int], start: str, factor: int) -> Tensor:
    """Make the images at the start, one class after the other, normalised."""
    pool, shape = material.pool, tuple(material.pool.data.x.shape[1:])
    if factor != 1 and len(shape) != 3:
        raise InputError(f"factor: found {factor} with vectors, allowed: 1")
    if len(shape) == 3:
        tiles.check(*shape[1:], factor)
    rng = torch.Generator().manual_seed(material.seed("start"))
    if start == "noise":
        return torch.randn(sum(quota), *shape, generator=rng).to(pool.data.device)
    select = None if start == "real" else registry.component("selectors", start)
    chosen = [pool.data.y[:0]]
    for rows, count in zip(members, quota, strict=True):
        wanted = count * factor**2
        if select is None:
            best = rows[torch.randperm(len(rows), generator=rng)[:wanted].to(rows.device)]
        else:
            best = rows[select(pool[rows], min(wanted, len(rows)), rng=rng).index]
        if not len(best):
            raise InputError(f"start: {start!r} chose nothing, allowed: real, noise, or a selector")
        chosen.append(best[torch.arange(wanted, device=best.device) % len(best)])
    return tiles.together(pool.prepare(pool.data.x[torch.cat(chosen)]), factor)
