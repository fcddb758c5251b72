"""Data sets as memory-mapped arrays, and the augmentation of whole batches."""
