"""Seeds that advance together: each is a run of its own, and their nets pass forward and backward as one stack.

Each seed has a thread, of which one works at a time: it works until it needs the gradients of its next step, and waits
then at its seat. When all wait, the nets whose batches have one shape pass as a stack, and go on one after the other.
Order of samples, memory, augmentation, loss, optimizer, evaluation and record are each seed's own.

A step always stacks as many nets as there are seats (:meth:`clsim.models.stacked.Stack.features`), so that the numbers
of a seed depend on its seat and on the number of seats alone. Seeds that were stopped after different experiences, or
one of them alone, go on with the numbers that they would have had.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from clsim.errors import InputError, RunBusy, raised
from clsim.models.nets import Net
from clsim.models.stacked import Passing, Stack, draw
from clsim.training.contract import Terms


@dataclass(frozen=True)
class Wish:
    """A step whose gradients a seed waits for.

    Attributes:
        passing: the net and its batch.
        precision: makes the context of the pass.
        terms: computes the terms of the loss; it asks the net for the features of the batch, once.
    """

    passing: Passing
    precision: Callable[[], AbstractContextManager]
    terms: Callable[[], Terms]


class Stopped(BaseException):
    """Ends the thread of a seed that is not to go on."""


class Seed:
    """A seed, its thread, and its seat; see :class:`clsim.training.contract.Seat`. Final.

    Attributes:
        number: the number of the seat, from 0.
        away: seconds in which it waited, apart from its share of the steps that were taken together.
        taken: number of steps that were taken together.
    """

    def __init__(self, number: int, table: Together, states: list[Tensor]) -> None:
        self.number, self.away, self.taken = number, 0.0, 0
        self.wish: Wish | None = None
        self.answer: Terms | Exception = {}
        self.share = 0.0
        self.result: Any = None
        self.over = self.stopped = False
        self._table, self._states = table, states
        self._turn = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def descend(
        self, net: Net, x: Tensor, precision: Callable[[], AbstractContextManager], terms: Callable[[], Terms]
    ) -> Terms:
        """Wish for a step, and wait until it is computed."""
        self.wish = Wish(Passing(net, x, draw(net, len(x))), precision, terms)
        started = time.perf_counter()
        self._wait()
        self.away += time.perf_counter() - started - self.share
        answer, self.answer = self.answer, {}
        if isinstance(answer, Exception):
            raise answer
        return answer

    def begin(self, work: Callable[..., Any]) -> None:
        """Make the thread of a seed; it begins with its first turn."""
        self._thread = threading.Thread(target=self._worked, args=(work,), name=f"seat {self.number}", daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        """Let the seed work until its next wish or its end, with torch's own generators as it left them."""
        outside = self._table.generators()
        self._table.set_generators(self._states)
        self._turn.release()
        self._table.back.acquire()
        self._states = self._table.generators()
        self._table.set_generators(outside)

    def stop(self) -> None:
        """End the seed where it waits, and its thread."""
        self.stopped = True
        self._turn.release()
        if self._thread is not None:
            self._thread.join()

    def _worked(self, work: Callable[..., Any]) -> None:
        try:
            self._turn.acquire()
            if not self.stopped:
                self.result = work(seat=self)
        except BaseException as error:  # the caller decides what becomes of it
            self.result = error
        self.over = True
        self._table.back.release()

    def _wait(self) -> None:
        self._table.back.release()
        self._turn.acquire()
        if self.stopped:
            raise Stopped


class Together:
    """Seats at which seeds advance together. Final.

    Args:
        seats: number of seats, whether or not a seed works at each.
        device: the device of the nets.

    Attributes:
        back: is released when the seed whose turn it is waits or has ended.
    """

    def __init__(self, seats: int, device: torch.device) -> None:
        self.back = threading.Semaphore(0)
        self._device = device
        self._seats = [Seed(number, self, self.generators()) for number in range(seats)]
        self._stack: Stack | None = None

    def run(self, works: Sequence[Callable[..., Any] | None]) -> list[Any]:
        """Let each seed work to its end; return what each returned, or the exception that it raised.

        Args:
            works: the work of each seat, which is called with ``seat``; None: nobody works there.

        Raises:
            RunBusy: if another process runs one of the seeds; the others are stopped.
        """
        working = [seat for seat, work in zip(self._seats, works, strict=True) if work is not None]
        try:
            for seat in working:
                seat.begin(works[seat.number])  # type: ignore[arg-type]
            while working:
                for seat in working:
                    if seat.wish is None:
                        seat.go_on()
                    if isinstance(seat.result, RunBusy):
                        raise seat.result
                working = [seat for seat in working if not seat.over]
                if working:
                    self._step(working)
        finally:
            for seat in working:
                seat.stop()
        return [seat.result for seat in self._seats]

    def generators(self) -> list[Tensor]:
        """Return the states of torch's own generators, which layers draw from."""
        states = [torch.get_rng_state()]
        return states if self._device.type != "cuda" else [*states, torch.cuda.get_rng_state(self._device)]

    def set_generators(self, states: Sequence[Tensor]) -> None:
        """Restore what :meth:`generators` returned."""
        torch.set_rng_state(states[0])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self._device)

    def _step(self, waiting: Sequence[Seed]) -> None:
        """Take a step of the seeds whose batches have one shape, of those shapes the one that is furthest behind."""
        started = time.perf_counter()
        shapes: dict[tuple[int, ...], list[Seed]] = {}
        for seat in waiting:
            if seat.wish is not None:
                shapes.setdefault(tuple(seat.wish.passing.x.shape), []).append(seat)
        chosen = min(shapes.values(), key=lambda of: (min(seat.taken for seat in of), len(of), of[0].number))
        wishes = [seat.wish if seat in chosen else None for seat in self._seats]
        for seat, answer in zip(self._seats, self._descended(wishes), strict=True):
            if answer is not None:
                seat.wish, seat.answer, seat.taken = None, answer, seat.taken + 1
        for seat in chosen:
            seat.share = (time.perf_counter() - started) / len(chosen)

    def _descended(self, wishes: Sequence[Wish | None]) -> list[Terms | Exception | None]:
        """Compute the gradients of each wish's loss; return its terms, or what went wrong."""
        passes = [None if wish is None else wish.passing for wish in wishes]
        first = next(wish for wish in wishes if wish is not None)
        found: list[Terms | Exception | None] = []
        try:
            if self._stack is None:
                self._stack = Stack(first.passing.net, len(wishes))
            with first.precision():
                features = self._stack.features(passes)
            for wish, features_of in zip(wishes, features, strict=True):
                found.append(None if wish is None else _terms(wish, features_of))
            losses = [reduce(torch.add, terms.values()) for terms in found if isinstance(terms, dict)]
            if losses:
                torch.autograd.backward(losses)
                self._stack.give_gradients(passes)
        except torch.OutOfMemoryError as error:  # which each run turns into a line
            return [None if wish is None else error for wish in wishes]
        except Exception as error:  # the model may be a user's own
            refusal = InputError(f"training.together: the nets cannot be stacked: it {raised(error)}; allowed: false")
            return [None if wish is None else refusal for wish in wishes]
        return [{k: v.detach() for k, v in one.items()} if isinstance(one, dict) else one for one in found]


def _terms(wish: Wish, features: Tensor) -> Terms | Exception:
    """Compute the terms of a wish; an error is of its seed alone."""
    try:
        with wish.precision(), wish.passing.net.answering(wish.passing.x, features):
            return wish.terms()
    except Exception as error:
        return error
