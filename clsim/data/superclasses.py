"""CIFAR-100's super-classes: which five classes belong to each."""

from __future__ import annotations

from collections.abc import Sequence

from clsim.errors import InputError

CIFAR100: dict[str, tuple[str, ...]] = {
    "aquatic mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit and vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household electrical devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large man-made outdoor things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large natural outdoor scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large omnivores and herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles 1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles 2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
"""Super-class → its classes, both in the order of their labels.

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
"""


def order(classes: Sequence[str]) -> list[int]:
    """Order the labels of CIFAR-100's classes, one super-class after the other.

    Args:
        classes: names of the classes; the position is the label.

    Raises:
        InputError: if the classes are not CIFAR-100's.
    """
    names = [name for members in CIFAR100.values() for name in members]
    if sorted(names) != sorted(classes):
        found = f"'superclass' with classes {', '.join(classes[:3])} …"
        raise InputError(f"stream.order: found {found}, allowed: with data.dataset = 'cifar100'")
    return [list(classes).index(name) for name in names]
