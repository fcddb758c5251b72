"""Data sets as memory-mapped arrays, and the augmentation of whole batches."""

from clsim.data.datasets import Dataset, data_root, digest, load, with_classes

__all__ = ["Dataset", "data_root", "digest", "load", "with_classes"]
