"""The table ``[embedding]`` of a spec: features apart from the learner's, and how a net learns without labels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from clsim.errors import InputError, at_least, nearest
from clsim.spec.frozen import check_backbone, is_backbone
from clsim.spec.reader import Options
from clsim.spec.tables import STARTS, OptimizerSpec

AUTO = ("auto",)
"""Augmentations that depend on the method and on the images."""


@dataclass(frozen=True)
class EmbeddingSpec:
    """Features for selectors that choose by an embedding, from a net that learns an experience's images without labels.

    The net is fresh in each experience, and trained on its training images before the first choice; no label is read,
    and what is held out is not trained on. Its features are ``pool.embedding``. Selectors whose papers choose by a
    self-supervised embedding read it (``clsim show NAME`` says so), all others read the learner's net; where no
    selector of the run reads it, nothing is trained. What was trained is kept in the cache beside the data sets, so
    that runs on the same images with the same settings train once.

    All keys but ``name`` and ``components`` also say how ``model.start`` is trained, whose net is the learner's.

    Attributes:
        name: ``none``; ``rotation`` (Gidaris, Singh & Komodakis, 2018), ``simclr`` (Chen et al., 2020), ``barlow``
            (Barlow Twins; Zbontar et al., 2021); or your own file ``./NAME.npz``, whose one array (or ``embedding``)
            has a row for each training image of the data set, in its order; or a frozen net, ``timm:NAME``,
            ``torchvision:NAME`` or ``open-clip:NAME``.
        model: the net, a name of ``clsim list models``, whatever the learner's is. That of the default keeps what is
            where in small images; one that ends in a mean over all pixels does not.
        options: keyword arguments of the model.
        epochs: passes over the images.
        images: number of images that are trained on, drawn at random; 0: all. Features are computed of all.
        batch_size: images in a step, of which each is shown in two views, or in four turns. 0: a twentieth of the
            images, but from 32 to 256, so that few images make many steps, too.
        lr: learning rate of Adam at the beginning, from which a cosine falls to 0.
        weight_decay: factor of the weights that is added to their gradient.
        augment: augmentations of the views, by names as in ``data.augment``. ``auto``: for two views ``affine``,
            ``flip`` (unless the images are digits or characters), and ``gamma`` of grey images or ``jitter`` of
            coloured ones; for rotations ``crop`` alone. The papers take photographs and crop far more, as
            ``resized-crop`` does; on small images of centred things that takes away what tells classes apart.
        components: number of principal components of the features that are the embedding, taken of up to 10,000 of the
            images; 0: the features themselves. Distances of many samples cost as much as they are wide.
        projection: width of what the loss of ``simclr`` and ``barlow`` sees, two layers above the features, of which
            the first has up to four times this width; these layers are thrown away.
        temperature: τ of ``simclr``; a low one pushes apart the nearest of other images above all, which may be of the
            same class.
        strength: λ of ``barlow``, the weight of its correlations between different dimensions.
        seed: seed of the weights and of all draws; −1: the seed of the run. With one seed, the runs of a study share
            one embedding, as long as their images are the same.
        weights: weights of the frozen net, a ``.safetensors`` file; empty: those of its library, which are downloaded.
    """

    name: str = "none"
    model: str = "strided-convnet3"
    options: Options = field(default_factory=dict)
    epochs: int = 20
    images: int = 10000
    batch_size: int = 0
    lr: float = 0.003
    weight_decay: float = 0.0
    augment: tuple[str, ...] = AUTO
    components: int = 128
    projection: int = 64
    temperature: float = 0.5
    strength: float = 0.005
    seed: int = -1
    weights: str = ""

    def __post_init__(self) -> None:
        at_least(1, "embedding.", epochs=self.epochs, projection=self.projection)
        if self.batch_size:
            at_least(2, "embedding.", batch_size=self.batch_size)
        at_least(0, "embedding.", components=self.components, images=self.images)
        at_least(0, "embedding.", weight_decay=self.weight_decay, strength=self.strength)
        at_least(-1, "embedding.", seed=self.seed)
        for key, value in (("lr", self.lr), ("temperature", self.temperature)):
            if not 0 < value < math.inf:
                raise InputError(f"embedding.{key}: found {value:g}, allowed: a finite number above 0")
        check_backbone("embedding.name", self.name if self.frozen else "", self.weights, "embedding.weights")
        if self.name not in ("none", *STARTS) and not self.of_rows:
            allowed = nearest(self.name, ("none", *STARTS, "FILE.npz", "timm:NAME"))
            raise InputError(f"embedding.name: found {self.name!r}; {allowed}")

    @property
    def from_file(self) -> bool:
        """Whether the embedding is a file of the user's."""
        return self.name.endswith(".npz")

    @property
    def frozen(self) -> bool:
        """Whether the embedding is that of a frozen net."""
        return is_backbone(self.name)

    @property
    def of_rows(self) -> bool:
        """Whether the embedding belongs to the data set's own images, row by row: a file, or a frozen net."""
        return self.from_file or self.frozen

    def batch(self, images: int) -> int:
        """Compute the size of a batch of so many images."""
        return min(self.batch_size or min(max(images // 20, 32), 256), images)

    @property
    def optimizer(self) -> OptimizerSpec:
        """The optimizer as a table of a spec."""
        return OptimizerSpec("adam", lr=self.lr, weight_decay=self.weight_decay, schedule="cosine")
