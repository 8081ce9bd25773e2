"""Start of a run by several processes: find each other, and make sure that all were given the same job."""

from __future__ import annotations

import torch

from gnnsys.errors import ConfigError
from gnnsys.pipeline.ranks import Alone, Mesh, Ranks, check_world, world
from gnnsys.training.config import TrainConfig


def take_part(config: TrainConfig, device: torch.device, job_digest: str) -> Ranks:
    """This process alone, or the mesh that it was started in.

    Raises:
        ConfigError: the processes do not fit the stages or micro-batches, or were given different options.
    """
    num_stages = config.pipeline or 1
    check_world(num_stages, config.micro_batches)
    if world() == 1:
        return Alone()
    ranks = Mesh(num_stages, device, config.stall_timeout)
    digests = ranks.gather(job_digest)
    if len(set(digests)) > 1:
        error = ConfigError("GS-CFG-816", "the ranks were started with different options, models or data")
        error.everywhere = True
        raise error
    return ranks
