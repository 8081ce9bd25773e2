"""Losses of the user's own: the same function is known again, another one is another run."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gnnsys.training.code_identity import identity_of_code


def scaled(out: Tensor, y: Tensor, k: float = 1.0) -> Tensor:
    return k * nn.functional.cross_entropy(out, y, reduction="none")


def made(k: float) -> Any:
    return lambda out, y: scaled(out, y, k)


def typed(dtype: torch.dtype) -> Any:
    return lambda out, y: scaled(out.to(dtype), y)


def with_module(module: Any) -> Any:
    """One that has it from around it, as an import inside a function gives it; torch holds half of the world."""
    return lambda out, y: module.relu(scaled(out, y))


class Scaled:
    def __init__(self, k: float, weight: list[float]) -> None:
        self.k, self.weight = k, torch.tensor(weight)

    def __call__(self, out: Tensor, y: Tensor) -> Tensor:
        return scaled(out, y, self.k)


OTHERS = [
    scaled,
    partial(scaled, k=1.0),
    partial(scaled, k=0.0),
    made(1.0),
    made(2.0),
    lambda out, y: scaled(out, y) + 1,
    lambda out, y: scaled(out, y) + 2,
    Scaled(1.0, [1, 2]),
    Scaled(2.0, [1, 2]),
    Scaled(1.0, [1, 3]),
    Scaled(1.0, [1, 2]).__call__,
    nn.CrossEntropyLoss(reduction="none"),
    nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1),
    nn.functional.cross_entropy,
    lambda out, y: scaled(out, y) if out.dtype in {torch.float32, torch.float64} else out,
    lambda out, y: scaled(out, y, {"mean": 1.0}.get("sum", 2.0)),
    typed(torch.float32),
    typed(torch.float64),
    with_module(nn.functional),
    with_module(torch),
]


def test_other_functions_have_other_identities() -> None:
    assert len({identity_of_code(each) for each in OTHERS}) == len(OTHERS)


@pytest.mark.parametrize(
    "make",
    [
        lambda: partial(scaled, k=0.5),
        lambda: made(3.0),
        lambda: Scaled(1.0, [1, 2]),
        lambda: nn.CrossEntropyLoss(reduction="none", weight=torch.ones(3)),
    ],
)
def test_the_same_made_again_is_the_same(make: Any) -> None:
    first, second = make(), make()
    first(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))  # having run changes nothing
    assert identity_of_code(first) == identity_of_code(second)


def test_another_process_tells_the_same_of_words_in_a_set() -> None:
    code = (
        "from gnnsys.training.code_identity import identity_of_code\n"
        "print(identity_of_code(lambda out, y: out if 'a' in {'b', 'c', 'd', 'e', 'f'} else y))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(told) == 1


def test_an_object_that_holds_itself_is_told() -> None:
    one, two = Scaled(1.0, [1]), Scaled(1.0, [1])
    one.own, two.own = one, two  # type: ignore[attr-defined]
    assert identity_of_code(one) == identity_of_code(two)
