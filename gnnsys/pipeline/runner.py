"""Perform one stage's row of a schedule: receive, compute, send, and backwards the same way round."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gnnsys.failpoints import failpoint
from gnnsys.pipeline.channel import Spec, Wire
from gnnsys.pipeline.ranks import heard
from gnnsys.pipeline.schedule import Action


class StageWork(Protocol):
    """What a stage computes, micro-batch by micro-batch."""

    def arriving(self, micro: int) -> Sequence[Spec] | None:
        """What the stage before will send for a micro-batch; None while that is not known."""
        ...

    def load(self, micro: int) -> None:
        """Get what forward needs from disk; after it `arriving` knows."""
        ...

    def forward(self, micro: int, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What goes to the next stage; from the last stage, the loss.

        Args:
            inputs: from the stage before, leaves that ask for gradients; empty on the first stage.
        """
        ...

    def end(self, micro: int) -> None:
        """Its backward is done: let go of it."""
        ...


@dataclass
class Seconds:
    """Where the time of a stage went."""

    compute: float = 0.0
    wait: float = 0.0
    """For other stages."""
    load: float = 0.0
    """For its own loader."""


class StageRunner:
    """Performs actions of one stage; a process has one, a test may have several.

    Args:
        work: the stage's layers.
        before, behind: wires to the neighbours; those without channels make the stage the first or the last.
    """

    def __init__(self, work: StageWork, before: Wire, behind: Wire) -> None:
        # The work owns its runner: a reference back would keep all that it holds until garbage is looked for.
        self._work: StageWork = weakref.proxy(work)
        self._before, self._behind = before, behind
        self._live: dict[int, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = {}
        self.seconds = Seconds()

    def step(self, row: Sequence[Action]) -> None:
        """A whole row; all messages have left when it returns.

        Raises:
            InterruptedWorkError: a neighbour is gone.
        """
        for number, action in enumerate(row):
            self.perform(action, row[number + 1] if number + 1 < len(row) else None)
        with heard("its neighbours"):
            self._before.flush()
            self._behind.flush()

    def perform(self, action: Action, then: Action | None = None) -> None:
        """One action; what `then` will need is asked for before computing, where its size is known."""
        failpoint("pipeline.stage")
        if action.kind == "F":
            self._forward(action.micro, then)
        else:
            self._backward(action.micro, then)

    def _forward(self, micro: int, then: Action | None) -> None:
        began = time.monotonic()
        self._work.load(micro)
        loaded = time.monotonic()
        inputs = self._received(self._before, lambda: self._work.arriving(micro), "the stage before")
        self._post_ahead(then)
        ready = time.monotonic()
        for tensor in inputs:
            tensor.requires_grad_(tensor.is_floating_point())
        outputs = self._work.forward(micro, inputs)
        self._live[micro] = (inputs, outputs)
        self._count(began, loaded, ready)
        if self._behind.out is not None:
            with heard("the stage behind"):
                self._behind.send(outputs)

    def _backward(self, micro: int, then: Action | None) -> None:
        began = time.monotonic()
        inputs, outputs = self._live.pop(micro)
        grads = self._received(self._behind, lambda: [Spec.of(out) for out in outputs], "the stage behind")
        self._post_ahead(then)
        ready = time.monotonic()
        with_grad = [(out, grads[i] if grads else None) for i, out in enumerate(outputs) if out.requires_grad]
        if with_grad:
            torch.autograd.backward([out for out, _ in with_grad], [grad for _, grad in with_grad])
        self._work.end(micro)
        self._count(began, began, ready)
        if self._before.out is not None:
            with heard("the stage before"):
                self._before.send([torch.zeros_like(t) if t.grad is None else t.grad for t in inputs])

    def _received(self, wire: Wire, specs: Callable[[], Sequence[Spec] | None], who: str) -> tuple[Tensor, ...]:
        """The next message of that wire; nothing where there is no neighbour."""
        if wire.into is None:
            return ()
        with heard(who):
            if not wire.num_posted:
                expected = specs()
                assert expected is not None
                wire.post(expected)
            return wire.receive()

    def _post_ahead(self, then: Action | None) -> None:
        """Begin to receive for the action after this one."""
        if then is None:
            return
        if then.kind == "F":
            wire, specs = self._before, self._work.arriving(then.micro)
        else:
            wire = self._behind
            specs = [Spec.of(out) for out in self._live[then.micro][1]] if then.micro in self._live else None
        if wire.into is not None and specs is not None and not wire.num_posted:
            with heard("a neighbour"):
                wire.post(specs)

    def _count(self, began: float, loaded: float, ready: float) -> None:
        self.seconds.load += loaded - began
        self.seconds.wait += ready - loaded
        self.seconds.compute += time.monotonic() - ready
