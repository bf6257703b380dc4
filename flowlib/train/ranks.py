"""Several processes, one training: ``torchrun`` starts them, and each computes its share of every batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


def rank_and_ranks() -> tuple[int, int]:
    """This process's number and how many there are: (0, 1) without ``torch.distributed``."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def start_alike(flow: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0."""
    for value in flow.state_dict().values():
        distributed.broadcast(value, 0)
    flow.load_state_dict(flow.state_dict())  # layers that remember whether they have started look again


def parallel(model: nn.Module, parameters: list[nn.Parameter], loss: Callable[[], Tensor]) -> nn.Module:
    """Wrap the model so that ``backward`` averages the gradients of all ranks.

    A parameter that the loss does not reach would make the others wait for its gradient forever, and to
    look for one at every step costs time: so one trial of the loss tells whether to look.
    """
    reached = torch.autograd.grad(loss(), parameters, allow_unused=True)
    return DistributedDataParallel(model, find_unused_parameters=any(one is None for one in reached))


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean over all ranks, on all ranks."""
    distributed.all_reduce(value)
    return value / distributed.get_world_size()


def from_first(value: float, device: torch.device) -> float:
    """The number that rank 0 has, on all ranks."""
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.broadcast(shared, 0)
    return float(shared)


def any_rank(wanted: bool, device: torch.device) -> bool:
    """Whether any rank says so, on all ranks."""
    shared = torch.tensor(int(wanted), device=device)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return bool(shared)
