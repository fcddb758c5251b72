"""A window over a stream that counts the members of which a new sample becomes the nearest neighbour."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


class NearestWindow:
    """The latest samples of a stream, each with the distance to the nearest sample that it has met. Final.

    Every sample enters the window when it has been counted; if the window is full, a member leaves it first.

    Args:
        size: number of samples in the window.
        leaves: which member leaves a full window. ``oldest``: the one that came first. ``weakest``: the one with the
            smallest memory strength exp(−Δt / (h + 1)), with h the number of its new nearest neighbours so far and Δt
            the number of samples since the last of them, or since it came; the older one of two.
    """

    def __init__(self, size: int, leaves: Literal["oldest", "weakest"]) -> None:
        self._size, self._leaves = size, leaves
        self._members: Tensor | None = None  # (m, d), in the order in which they came
        self._nearest = np.zeros(0)
        self._hits = np.zeros(0, dtype=np.int64)
        self._last = np.zeros(0, dtype=np.int64)
        self._time = 0

    def counts(self, x: Float[Tensor, "n d"]) -> list[int]:
        """Count, for each sample in turn, the members of which it becomes the nearest neighbour; it then enters.

        The distance is Euclidean. Of equal distances the earlier sample stays the nearest.
        """
        # as many distances at once as a window has members: it bounds the memory, and changes no count
        return [count for part in x.split(max(self._size, 16)) for count in self._chunk(part)]

    def _chunk(self, x: Tensor) -> list[int]:
        stacked = x if self._members is None else torch.cat([self._members.to(x), x])
        # each distance is a sum of its own, so that it does not depend on what is computed beside it
        found = torch.cdist(x, stacked, compute_mode="donot_use_mm_for_euclid_dist").cpu().numpy().astype(np.float64)
        before = len(stacked) - len(x)
        members, counts = np.arange(before), []
        for i, distances in enumerate(found):
            to_members = distances[members]
            new = to_members < self._nearest
            counts.append(int(new.sum()))
            self._nearest[new] = to_members[new]
            self._hits[new] += 1
            self._last[new] = self._time
            if len(members) == self._size:
                gone = 0 if self._leaves == "oldest" else int(((self._time - self._last) / (self._hits + 1)).argmax())
                stay = np.arange(len(members)) != gone
                members, self._nearest = members[stay], self._nearest[stay]
                self._hits, self._last = self._hits[stay], self._last[stay]
            members = np.append(members, before + i)
            self._nearest = np.append(self._nearest, to_members.min(initial=np.inf))
            self._hits, self._last = np.append(self._hits, 0), np.append(self._last, self._time)
            self._time += 1
        self._members = stacked[torch.from_numpy(members).to(stacked.device)]
        return counts

    def state_dict(self) -> dict[str, Any]:
        """Return the members, and what is known of each."""
        return {
            "members": self._members,
            "nearest": torch.from_numpy(self._nearest.copy()),
            "hits": torch.from_numpy(self._hits.copy()),
            "last": torch.from_numpy(self._last.copy()),
            "time": self._time,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self._members, self._time = state["members"], state["time"]
        self._nearest, self._hits, self._last = (
            state[name].cpu().numpy().copy() for name in ("nearest", "hits", "last")
        )
