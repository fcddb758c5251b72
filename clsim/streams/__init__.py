"""Streams: experiences in order, as tensors."""
