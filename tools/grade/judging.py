"""What a rubric judges answers with: numbers that are near, finite differences, inputs drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tools.grade.rubric import Code, Probe, Wrong


def made(source: str, **given: Any) -> tuple[Callable[..., Tensor], Code]:
    """A function from its source, and what students are sent of it."""
    return eval(source, {"torch": torch} | given), Code(source, given)


def pair(probe: Probe, name: str, *args: Any) -> list[Any]:
    """The two things that the student's function of that name returns."""
    answer = probe.ask(name, *args)
    if not isinstance(answer, list) or len(answer) != 2:
        raise Wrong(f"{name} must return a pair.")
    return answer


def numbers(got: Any, shape: tuple[int, ...]) -> Tensor:
    """The answer in double precision, if it is finite numbers of that shape."""
    if isinstance(got, list):
        try:
            got = torch.stack([entry.double() for entry in got])
        except (RuntimeError, AttributeError, TypeError):
            raise Wrong(f"It is a list of {len(got)} things, not numbers of shape {shape}.") from None
    if isinstance(got, int | float):  # a number that the rubric has worked out
        got = torch.tensor(got, dtype=torch.float64)
    if not isinstance(got, Tensor):
        raise Wrong(f"It is text (“{str(got)[:60]}”), not numbers.")
    if got.dtype == torch.bool or got.is_complex():
        raise Wrong(f"It has the type {got.dtype}; real numbers were asked for.")
    if shape == () and got.numel() == 1:
        got = got.reshape(())
    if tuple(got.shape) != shape:
        raise Wrong(f"It has shape {tuple(got.shape)}; {shape} was asked for.")
    if bad := int((~torch.isfinite(got.double())).sum()):
        raise Wrong(f"{bad} of its {got.numel()} numbers are NaN or infinite.")
    return got.double()


def near(got: Any, want: Tensor | float, tol: float = 1e-6) -> None:
    """Raise :class:`Wrong` unless the numbers agree to ``tol``, absolute and relative to the largest."""
    want = torch.as_tensor(want, dtype=torch.float64)
    single = isinstance(got, Tensor) and got.dtype == torch.float32
    answer = numbers(got, tuple(want.shape))
    error = (answer - want).abs()
    allowed = tol * max(1.0, want.abs().max().item() if want.numel() else 1.0)
    off = int((error > allowed).sum())
    if not off:
        return
    size = f"{off} of {want.numel()} numbers are" if want.numel() > 1 else "It is"
    sentence = (
        f"{size} off, by {error.max():.3g} at most."
        if want.numel() > 1
        else f"It is off by {error.max():.3g}."
    )
    raise Wrong(sentence + _hint(answer, want, allowed) + (" It came in single precision." if single else ""))


def at_most(got: Any, bound: float) -> None:
    """Raise :class:`Wrong` unless one number is at most ``bound``."""
    value = numbers(got, ()).item()
    if not value <= bound:
        raise Wrong(f"It is {value:.4g}; at most {bound:.4g} was asked for.")


def slopes(function: Callable[[Tensor], Tensor], points: Tensor, step: float = 1e-5) -> Tensor:
    """Jacobians ``(B, m, d)`` by central differences, by no autograd that one could tamper with."""
    shifts = step * torch.eye(points.shape[1], dtype=points.dtype)
    both = torch.cat([points[:, None] + shifts, points[:, None] - shifts], 1).flatten(0, 1)
    up, down = function(both).unflatten(0, (len(points), -1)).chunk(2, 1)
    return ((up - down) / (2 * step)).mT


def log_volume(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """``log|det|`` of the Jacobian of any function, by central differences."""
    return torch.linalg.slogdet(slopes(function, points)).logabsdet


def draw(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers in double precision that no notebook has."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7919 * seed + 13))


def _hint(answer: Tensor, want: Tensor, allowed: float) -> str:
    """What a sign or a factor that is the same everywhere looks like."""
    scale = want.abs().max().item()
    if scale <= allowed:
        return ""
    factor = ((answer * want).sum() / (want * want).sum()).item()
    if (
        abs(factor) > 1e-3
        and (answer - factor * want).abs().max().item() <= 10 * allowed
        and want.numel() > 1
    ):
        if abs(factor + 1) < 1e-3:
            return " The sign is the other way round."
        return f" It is {factor:.3g} times what was expected."
    shift = (answer - want).mean().item()
    if want.numel() > 1 and (answer - want - shift).abs().max().item() <= 10 * allowed:
        return f" It is what was expected {'plus' if shift > 0 else 'minus'} {abs(shift):.4g} everywhere."
    return ""
