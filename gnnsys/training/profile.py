"""What layers cost: seconds, bytes given on and bytes held, measured one by one on one batch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gnnsys.keys import derive
from gnnsys.models.randomness import random_from
from gnnsys.pipeline.placement import LayerCost
from gnnsys.training.stages import as_tensors

_WARM_UPS, _REPEATS = 3, 5


def profile_layer(
    layer: nn.Module, number: int, block: Callable[[], Any], h: Any, precision: str
) -> tuple[LayerCost, Any]:
    """Forward and backward of a layer on its own, and what it gives; weights stay as they are.

    Args:
        number: of the layer; the first one's rows have no gradient.
        block: makes the block, anew for every pass.
        h: what the layer reads, a tensor (S, F) or a tuple of them.
        precision: `f32` or `bf16`, of dense products.

    Returns:
        Medians of some passes after a few that are not counted; held are the tensors that autograd keeps, without
        parameters.
    """
    forward, backward = [], []
    held = _Held(layer)
    for _ in range(_WARM_UPS + _REPEATS):
        inputs = tuple(tensor.detach().requires_grad_(number > 0) for tensor in as_tensors(h))
        made = block()
        held.next_pass()
        narrow = torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=precision == "bf16")
        with random_from(derive(0, number), inputs[0].device), narrow:
            began = _now(inputs[0])
            with torch.autograd.graph.saved_tensors_hooks(held.note, lambda tensor: tensor):
                out = as_tensors(layer(inputs[0] if len(inputs) == 1 else inputs, made))
            forward.append(_now(inputs[0]) - began)
        grads = [(tensor, torch.ones_like(tensor)) for tensor in out if tensor.requires_grad]
        began = _now(inputs[0])
        if grads:
            torch.autograd.backward([tensor for tensor, _ in grads], [grad for _, grad in grads])
        backward.append(_now(inputs[0]) - began)
    layer.zero_grad(set_to_none=True)
    cost = LayerCost(
        forward_s=statistics.median(forward[_WARM_UPS:]),
        backward_s=statistics.median(backward[_WARM_UPS:]),
        sent_bytes=sum(tensor.nbytes for tensor in out),
        held_bytes=held.num_bytes // (_WARM_UPS + _REPEATS),
        parameter_bytes=sum(p.nbytes for p in layer.parameters()),
    )
    given = tuple(tensor.detach() for tensor in out)
    return cost, given[0] if len(given) == 1 else given


class _Held:
    """Counts what autograd keeps for a backward pass."""

    def __init__(self, layer: nn.Module) -> None:
        self.num_bytes = 0
        self._parameters = {p.untyped_storage().data_ptr() for p in layer.parameters()}
        self._seen = set(self._parameters)

    def next_pass(self) -> None:
        """Memory of the pass before may be used again."""
        self._seen = set(self._parameters)

    def note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.num_bytes += storage.nbytes()
        return tensor


def _now(like: Tensor) -> float:
    if like.is_cuda:
        torch.cuda.synchronize(like.device)
    return time.perf_counter()
