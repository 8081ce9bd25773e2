"""TrainConfig: every option of a training run, checked once, with a digest of those that decide the weights."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gnnsys.budget import DEFAULT_MEMORY
from gnnsys.errors import ConfigError
from gnnsys.pipeline.ranks import world
from gnnsys.storage.manifest import canonical_json
from gnnsys.training.learning_rate import Schedule
from gnnsys.units import parse_size

_EXECUTION = ("pipeline", "schedule", "recompute", "stall_timeout", "workers", "threads", "prefetch")
NOT_DECISIVE = ("memory", "checkpoint_steps", "rows", "guard_every", *_EXECUTION)
"""Options that may differ between two runs with equal weights. `threads` may change the last bits of a sum, so
resuming with another number warns."""

OF_NETWORK = ("heads", "residual", "jk")
"""Options of models by name that not every one takes."""

OF_CHUNKS = ("chunks", "refresh", "compensation", "history", "shuffle_chunks", "guard_every")
"""Options of training on the whole graph; without `chunks` there is nothing that they could mean."""


class TrainConfig(BaseModel):
    """Options of one run; unknown names are refused. Make one with `parse_config`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    model: str = "sage"
    """A registered name, or for a model of the user's own what it is called."""
    layers: Annotated[int, Field(ge=1)] | None = None
    """Default: one per hop of the pack or of `fanouts`, 2 without hops."""
    hidden: Annotated[int, Field(ge=1)] = 256
    """Width of hidden layers."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of values dropped while training."""
    heads: Annotated[int, Field(ge=1)] | None = None
    """Of attention in every layer of `gat` and `gatv2`; 8 when not given."""
    residual: bool = False
    """Add to what a layer gives what it read, where the widths are equal."""
    jk: Literal["last", "cat", "max", "lstm"] | None = None
    """Jumping knowledge: the output is a map of what all layers gave, joined like this."""
    lr: Annotated[float, Field(gt=0)] = 0.003
    """Learning rate of Adam."""
    lr_schedule: Schedule = "constant"
    """Of the learning rate over the steps of all `epochs`; `linear` and `cosine` fall to 0."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs in whose steps the learning rate rises up to `lr`, before the schedule begins."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Gradients of a step whose norm over all parameters is greater are scaled down to it."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty of Adam."""
    epochs: Annotated[int, Field(ge=1)] = 10
    """Passes over the seeds."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Evaluations without improvement on `valid` before training stops; 0 = never."""
    metric: Literal["acc", "rocauc", "f1", "rmse", "mae", "r2"] | None = None
    """What is scored, and decides which epoch was the best. Default: `acc` of classes, `rocauc` of
    several answers, `rmse` of numbers."""
    loss: Literal["mse", "l1"] | None = None
    """Of numbers; default: `mse`."""
    weighted: bool = False
    """Neighbours in a Store are drawn in proportion to the weights of its edges."""
    class_weights: Literal["balanced"] | None = None
    """`balanced`: the loss of a class counts the more the rarer it is among the nodes to train on."""
    eval_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between evaluations on `valid`; the last epoch is always evaluated."""
    seeds: Annotated[str, Field(min_length=1)] | None = None
    """Split of a Store to train on; `train` when not given. A pack has its own."""
    fanouts: tuple[Annotated[int, Field(ge=-1)], ...] | None = None
    """Neighbours per hop, seed side first, -1 for all. A pack has its own."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Default: the pack's, 1024 when sampling online."""
    micro_batches: Annotated[int, Field(ge=1)] = 1
    """Consecutive batches whose gradients make one step."""
    pipeline: Annotated[int, Field(ge=1)] | None = None
    """Stages, each a process with some of the layers; weights are the same for any number. When it is given, `threads`
    is 1 unless given too, so that they are the same whatever the cores."""
    schedule: Literal["1f1b", "gpipe", "fill-drain"] = "1f1b"
    """Of the micro-batches through the stages: `1f1b` holds fewer at once, weights are the same. Chunks of a whole
    graph always go `fill-drain`."""
    recompute: bool = False
    """Keep only what a stage receives, and what its neighbours sum up to on a whole graph, until the backward pass, and
    compute the rest twice: less memory, the same weights."""
    chunks: Annotated[int, Field(ge=1)] | None = None
    """Train on the whole graph of a Store, one step an epoch, in so many parts; 1 is exact."""
    refresh: Annotated[int, Field(ge=1)] = 20
    """Epochs between snapshots of the rows that chunks read of each other."""
    compensation: Annotated[float, Field(ge=0)] = 2.0
    """Factor of gradients between chunks, for those dropped along stale rows."""
    history: Literal["exact", "zero"] = "exact"
    """What chunks read of each other in the first epoch: rows under the first weights, or zeros."""
    shuffle_chunks: bool = True
    """Another order of chunks in every epoch."""
    guard_every: Annotated[int, Field(ge=0)] = 20
    """Epochs between comparisons of the loss with the exact one; training stops when they are far apart. 0 = never."""
    stall_timeout: Annotated[float, Field(gt=0)] = 300.0
    """Seconds that one stage may keep the others waiting within a step before they give up."""
    memory: Annotated[int, Field(ge=1)] = DEFAULT_MEMORY
    """Bytes that training may grow by; also accepts `2GiB`."""
    precision: Literal["f32", "bf16"] = "f32"
    """Of dense products while training (torch.autocast). bf16 pays where the processor has it (AVX-512 BF16, AMX, a
    GPU); weights, sums over neighbours, losses and evaluation stay float32."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    """Decides initial weights, order of batches, sampling of a Store and dropout."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Loading threads; default: as many as fit, at most half of the cores, 2 to 8."""
    prefetch: Annotated[int, Field(ge=1)] | None = None
    """Batches made ahead; default: as many as fit, 2 for two workers, 11 for eight."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """torch threads; default: as torch chose."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """auto, cpu, cuda or cuda:1; auto is CUDA where there is one."""
    checkpoint_steps: Annotated[int, Field(ge=0)] = 0
    """Steps between checkpoints within an epoch; every epoch and every 5 minutes there is one anyway."""
    rows: Literal["auto", "packed", "direct", "mapped", "memory"] = "auto"
    """Where rows come from; auto is as the pack was laid out, mapped for a Store. Never changes the result."""

    @field_validator("memory", mode="before")
    @classmethod
    def _size(cls, value: Any) -> Any:
        return parse_size(value) if isinstance(value, str) else value

    @property
    def split(self) -> str:
        """Split of a Store that an epoch goes over, where no Loader says another."""
        return self.seeds or "train"

    def of_network(self) -> dict[str, Any]:
        """Keywords of a network beside its sizes, those that were given."""
        return {name: value for name in OF_NETWORK if (value := getattr(self, name))}

    def decisive(self) -> dict[str, Any]:
        """The options that decide the weights, as JSON values."""
        without = NOT_DECISIVE if self.chunks else (*NOT_DECISIVE, *OF_CHUNKS)
        return {k: v for k, v in self.model_dump(mode="json").items() if k not in without}


def parse_config(values: Mapping[str, Any]) -> TrainConfig:
    """Check options given by name; None means "not given".

    Raises:
        ConfigError: a name that does not exist (with the nearest one), or a value of the wrong type or range.
    """
    given = {key: value for key, value in values.items() if value is not None}
    known = TrainConfig.model_fields
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known)}."
            raise ConfigError("GS-CFG-002", f"unknown training option {key!r}", hint=hint)
    if "chunks" not in given:
        _refuse_given(given, OF_CHUNKS, "needs chunks: it is for training on the whole graph")
        if given.get("schedule") == "fill-drain":
            _refuse_given(given, ["schedule"], "is fill-drain, which is for chunks: it adds gradients in reverse")
    elif given.get("schedule", "fill-drain") != "fill-drain":
        _refuse_given(given, ["schedule"], "must be fill-drain for chunks: they go backwards in reverse")
    several = "pipeline" in given or world() > 1
    try:
        config = TrainConfig(**({"threads": 1} if several else {}) | given)
    except ValidationError as error:
        raise ConfigError("GS-CFG-501", "; ".join(sentence(e) for e in error.errors())) from None
    if config.warmup_epochs >= config.epochs:
        raise ConfigError(
            "GS-CFG-953",
            f"warmup_epochs is {config.warmup_epochs}, of {config.epochs} epochs: lr would never be reached",
        )
    return config


def _refuse_given(given: Mapping[str, Any], options: Sequence[str], why: str) -> None:
    for key in options:
        if key in given:
            raise ConfigError("GS-CFG-831", f"the option {key!r} {why}")


def config_digest(decisive: Mapping[str, Any]) -> str:
    """`sha256:<hex>` of the canonical JSON of what decides the weights."""
    return "sha256:" + hashlib.sha256(canonical_json(dict(decisive))).hexdigest()


def sentence(error: Any) -> str:
    """One of pydantic's errors in our words: the option, what was given and what it should be."""
    name = str(error["loc"][0]) if error["loc"] else "option"
    message = str(error["msg"])
    return f"{name} is {error['input']!r}: {message[:1].lower()}{message[1:]}"
