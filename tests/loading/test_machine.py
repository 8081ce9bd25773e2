"""Any order of next, state_dict, load_state_dict, set_epoch and close delivers what a list of all batches would."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gnnsys.errors import ConfigError
from gnnsys.loading.loader import Loader
from tests.loading.conftest import World, same
from tests.programme import record

EXAMPLES, STEPS = int(os.environ.get("EXAMPLES", "12")), 25
EPOCHS = st.integers(0, 2)


class LoaderMachine(RuleBasedStateMachine):
    """The model is a position: an epoch and the number of batches delivered of it."""

    positions = Bundle("positions")
    open: Callable[[], Loader]
    epochs: list[list[Any]]
    """Every batch of the first epochs, from a loader that nobody disturbed."""

    def __init__(self) -> None:
        super().__init__()
        self.loader, self.epoch, self.done = type(self).open(), 0, 0
        self.loop: Any = None

    @rule()
    def next(self) -> None:
        if self.epoch == len(self.epochs):
            self.set_epoch(0)
        if self.loop is None:
            self.loop = iter(self.loader)
        if (batch := next(self.loop, None)) is not None:
            assert same(batch, self.epochs[self.epoch][self.done])
            self.done += 1
        else:
            assert self.done == len(self.epochs[self.epoch])
            self.loop, self.epoch, self.done = None, self.epoch + 1, 0

    @rule(times=st.integers(2, 8))
    def next_often(self, times: int) -> None:
        for _ in range(times):
            self.next()

    @rule(target=positions)
    def state_dict(self) -> tuple[str, int, int]:
        return json.dumps(self.loader.state_dict()), self.epoch, self.done

    @rule(position=positions)
    def load_state_dict(self, position: tuple[str, int, int]) -> None:
        state, self.epoch, self.done = position
        self.loader.load_state_dict(json.loads(state))
        self._moved()

    @rule(epoch=EPOCHS)
    def set_epoch(self, epoch: int) -> None:
        self.loader.set_epoch(epoch)
        self.epoch, self.done = epoch, 0
        self._moved()

    @rule()
    def leave_the_loop(self) -> None:
        if self.loop is not None:
            self.loop.close()
            self.loop = None

    @rule()
    def close_and_continue_with_another(self) -> None:
        state = self.loader.state_dict()
        self.loader.close()
        with pytest.raises(ConfigError, match="GS-CFG-405"):
            self.loader.set_epoch(0)
        self.loader = type(self).open()
        self.loader.load_state_dict(state)
        self.loop = None

    @invariant()
    def it_stands_where_the_model_does(self) -> None:
        state = self.loader.state_dict()
        at_end = self.epoch < len(self.epochs) and self.done == len(self.epochs[self.epoch])
        assert (state["epoch"], state["next"]) == (self.epoch, self.done) or at_end

    def _moved(self) -> None:
        """A loop that was under way must notice."""
        if self.loop is not None:
            with pytest.raises((ConfigError, StopIteration)):
                next(self.loop)
            self.loop = None

    def teardown(self) -> None:
        self.loader.close()


@pytest.mark.timeout(36_000)
@pytest.mark.parametrize("kind", ["pool", "packed", "store"])
def test_any_order_of_calls_delivers_the_batches_of_the_model(kind: str, world: World) -> None:
    def open() -> Loader:
        if kind == "store":
            return Loader(world.store, fanouts=[4, 3], batch_size=24)
        return Loader(getattr(world, kind), store=world.store)

    with open() as loader:
        machine: Any = type(
            kind, (LoaderMachine,), {"open": staticmethod(open), "epochs": [list(loader) for _ in range(3)]}
        )
    options = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, derandomize=EXAMPLES < 100)
    run_state_machine_as_test(machine, settings=options)
    record("state machines", {"examples": EXAMPLES, "violations": 0})
