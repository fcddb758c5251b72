"""A gradient step as a CUDA graph: recorded once in an experience, and replayed for all steps that follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from clsim.errors import InputError, first_line
from clsim.pool.exemplars import Exemplars

Step = Callable[[Exemplars, Exemplars | None], dict[str, Tensor]]
"""A step on new and replayed samples, which returns the terms of its loss."""

RUN_FIRST = 3
"""Steps that are not recorded: the optimizer makes its buffers in them, and cuDNN chooses its kernels."""


class Graph:
    """A step that is recorded after ``RUN_FIRST`` steps, and then replayed. Final.

    A graph reads its inputs from fixed places, to which those of each step are copied. A step on inputs of another
    shape is taken as it is. Without a GPU all steps are, but those that would be replayed read from the same places:
    what cannot work so on a processor cannot on a GPU.

    Args:
        device: the device of the step.
        generators: the generators on the device that the step draws from; torch's own is always among them.
    """

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator]) -> None:
        self._device, self._generators, self._taken = device, list(generators), 0
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._places: list[Exemplars] = []
        self._terms: dict[str, Tensor] = {}

    def step(self, step: Step, new: Exemplars, old: Exemplars | None) -> dict[str, Tensor]:
        """Take one step; return its terms.

        Args:
            step: the step, the same in each call. Nothing in it waits for the device, counts, or depends on anything
                but its inputs and what it changes in place on the device.
            new, old: new and replayed samples.

        Raises:
            InputError: if the step cannot be recorded.
        """
        parts = [new] if old is None else [new, old]
        if self._taken < RUN_FIRST:
            self._taken += 1
            return self._beside(step, new, old)
        if not self._places:
            self._places = [Exemplars(**{k: column.clone() for k, column in p.columns().items()}) for p in parts]
        if [_shapes(part) for part in parts] != [_shapes(part) for part in self._places]:
            return step(new, old)
        for place, part in zip(self._places, parts, strict=True):
            kept = place.columns()
            for name, column in part.columns().items():
                kept[name].copy_(column)
        if self._stream is None:
            self._terms = self._on_places(step)
        else:
            self._graph = self._graph or self._recorded(step, self._stream)
            self._graph.replay()
        return {name: term.clone() for name, term in self._terms.items()}

    def _beside(self, step: Step, new: Exemplars, old: Exemplars | None) -> dict[str, Tensor]:
        """Take the step as it is, on the stream that will record it, as CUDA asks of what is to be recorded."""
        if self._stream is None:
            return step(new, old)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            terms = step(new, old)
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return terms

    def _on_places(self, step: Step) -> dict[str, Tensor]:
        return step(self._places[0], self._places[1] if len(self._places) > 1 else None)

    def _recorded(self, step: Step, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(graph, stream=stream):
                self._terms = self._on_places(step)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"training.compile: found 'auto', and a step of this run cannot be recorded ({first_line(error)}); "
                "allowed: off"
            ) from error
        return graph


def _shapes(part: Exemplars) -> dict[str, tuple[int, ...]]:
    return {name: tuple(column.shape) for name, column in part.columns().items()}
