"""Transforms of the pool, a family a file: functions ``(parts, *, options, rng) -> Parts``."""
