"""A gradient step that a GPU records once and replays, so that the processor has nothing to wait for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from clsim.pool.exemplars import Exemplars
from clsim.training.contract import Terms

Step = Callable[[Exemplars, Exemplars | None], Terms]
"""New samples and replayed ones → the terms of the loss, detached. The step is done on the device alone."""


class Recorded:
    """A step that becomes a CUDA graph for each shape of its batches. Final.

    The first steps of a shape run as they are (the optimizer makes its buffers in them), the next one is recorded, and
    every further one is a single replay: the numbers are the same, without the launch of each kernel. A batch of
    another shape is recorded anew.

    Args:
        step: forward pass, backward pass and the optimizer's update. It must not wait for the device, and must do the
            same work in every call: what it reads beside its arguments stays where it is.
        generators: those on the device that the step draws from.
    """

    RUN_FIRST = 3
    """Steps of a shape before it is recorded."""

    def __init__(self, step: Step, generators: Sequence[torch.Generator]) -> None:
        self._step = step
        self._generators = list(generators)
        self._done: dict[tuple, int] = {}
        self._graphs: dict[tuple, tuple[torch.cuda.CUDAGraph, list[Exemplars], Terms]] = {}
        self._stream = torch.cuda.Stream()

    def __call__(self, new: Exemplars, old: Exemplars | None) -> Terms:
        """Take one step; returns its terms."""
        parts = [new] if old is None else [new, old]
        shape = tuple((name, tuple(column.shape)) for part in parts for name, column in part.columns().items())
        if self._done.get(shape, 0) < self.RUN_FIRST:
            self._done[shape] = self._done.get(shape, 0) + 1
            return self._beside(new, old)
        if shape not in self._graphs:
            self._graphs[shape] = self._record(parts)
        graph, inputs, terms = self._graphs[shape]
        for place, part in zip(inputs, parts, strict=True):
            for name, column in part.columns().items():
                place.columns()[name].copy_(column)
        graph.replay()
        return {name: term.clone() for name, term in terms.items()}

    def _beside(self, new: Exemplars, old: Exemplars | None) -> Terms:
        """The step as it is, on the stream that will record it, as CUDA asks of what is to be recorded."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            terms = self._step(new, old)
        torch.cuda.current_stream().wait_stream(self._stream)
        return terms

    def _record(self, parts: Sequence[Exemplars]) -> tuple[torch.cuda.CUDAGraph, list[Exemplars], Terms]:
        inputs = [Exemplars(**{name: column.clone() for name, column in part.columns().items()}) for part in parts]
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=self._stream):
            terms = self._step(inputs[0], inputs[1] if len(inputs) > 1 else None)
        return graph, inputs, terms
