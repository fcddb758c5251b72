"""Lengths of time in words, as commands and estimates say them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """
    >>> duration(8.4), duration(200), duration(9000)
    ('8 s', '3 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
