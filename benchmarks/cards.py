"""What GPUs could do at most, as their makers publish it: the measure for how well one is used."""

from __future__ import annotations

#: The peaks of dense matrix products in 10¹² operations per second, by the name that CUDA gives the card, or
#: the part of it before a hyphen. Under "float32" stands that of TF32 where the card has it, for torch's
#: convolutions use it unless they are told not to. The data sheets of L4, H100 and H200 give twice these
#: numbers, which hold for matrices that are half zeros. Source: NVIDIA's data sheets of these cards.
PEAKS: dict[str, dict[str, float]] = {
    "Tesla T4": {"float32": 8.1},
    "Tesla V100-SXM2": {"float32": 15.7},
    "NVIDIA L4": {"float32": 60, "bfloat16": 121},
    "NVIDIA A100": {"float32": 156, "bfloat16": 312},
    "NVIDIA A100 80GB PCIe": {"float32": 156, "bfloat16": 312},
    "NVIDIA H100 PCIe": {"float32": 378, "bfloat16": 756},
    "NVIDIA H100 80GB HBM3": {"float32": 494, "bfloat16": 989},
    "NVIDIA H200": {"float32": 494, "bfloat16": 989},
}


def share_of_peak(card: str, precision: str, flops_per_second: float) -> float | None:
    """Which part of a card's peak a rate is; None for a card or a precision that is not in the table.

    Example:
        >>> share_of_peak("NVIDIA A100-SXM4-40GB", "bfloat16", 31.2e12)
        0.1
        >>> share_of_peak("NVIDIA L40S", "bfloat16", 31.2e12) is None
        True
    """
    names = [name for name in PEAKS if card == name or card.startswith(name + "-")]
    peak = PEAKS[names[0]].get(precision) if names else None
    return None if peak is None else flops_per_second / (1e12 * peak)


__all__ = ["PEAKS", "share_of_peak"]
