r"""Pictures of flows in the plane and of images, readable on light and dark pages and by colour-blind eyes.

Every function draws into the Axes it is given, or into a new figure, and returns the Axes so that
the caller can title them. Tensors come from any device and in any precision. In a notebook, end
the cell with ``plt.show()``. Call :func:`use_style` once before the first figure.

A box is ``((low, high), (low, high))``, first for the horizontal and then for the vertical axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from torch import Tensor, nn

from flowlib.bijection import check_finite
from flowlib.flow import Flow

Box = Sequence[Sequence[float]]

# Okabe and Ito (2008), the colours that stand out most on white first
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]


def use_style() -> None:
    """Set matplotlib's defaults for the course: opaque white, large type, few lines.

    A book page 390 px wide shows a figure of 6.4 inches at about half its size: letters of
    12 points are then the smallest that can be read.
    """
    plt.rc("figure", facecolor="white", dpi=110, figsize=(6.4, 3.6))
    plt.rc("figure.constrained_layout", use=True)
    plt.rc("axes", facecolor="white", titlesize=12, labelsize=12, prop_cycle=plt.cycler(color=COLOURS))
    plt.rc("axes.spines", top=False, right=False)
    plt.rc("font", size=12)
    plt.rc("xtick", labelsize=11)
    plt.rc("ytick", labelsize=11)
    plt.rc("legend", fontsize=11, frameon=False)
    plt.rc("lines", linewidth=2.0)


def panels(
    n: int, width: float = 6.4, columns: int | None = None, aspect: float = 1.0
) -> tuple[Figure, np.ndarray]:
    """Make ``n`` panels in rows, narrow enough for a phone.

    Args:
        n: how many panels.
        width: of the whole figure, in inches.
        columns: panels in a row; 3 if not given, or 2 for two or four panels.
        aspect: a panel's height as a multiple of its width.

    Returns:
        the figure and a flat array of its ``n`` Axes, for every ``n``.

    Raises:
        ValueError: if ``n`` is below 1.

    Example:
        >>> figure, axes = panels(5)
        >>> axes.shape
        (5,)
        >>> plt.close(figure)
    """
    if n < 1:
        raise ValueError(f"panels needs at least one panel; n came as {n}.")
    columns = columns or (2 if n in (2, 4) else min(n, 3))
    rows = -(-n // columns)
    # beside each panel 0.45 inches for tick labels, above and below it 0.65 for them and a title
    height = rows * (aspect * (width / columns - 0.45) + 0.65)
    figure, grid = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained")
    axes = grid.flatten()
    for unused in axes[n:]:
        unused.remove()
    return figure, axes[:n]


def density(what: Any, box: Box, ax: Axes | None = None, n: int = 150, **options: Any) -> Axes:
    r"""Draw :math:`p(x) = e^{\log p(x)}` over a box, from 0 to its largest value.

    Args:
        what: a :class:`~flowlib.flow.Flow`, anything else with a ``log_prob``, or a function that maps
            points ``(N, 2)`` to log-densities ``(N,)``. It is evaluated without gradients, in the
            precision and on the device of the flow.
        box: what to show.
        ax: where to draw; a new figure if not given.
        n: cells along each side.
        options: for ``Axes.imshow``, such as ``vmax`` to give two panels one scale.

    Raises:
        ValueError: if a log-density is NaN or :math:`+\infty`; :math:`-\infty` is density 0.

    Example:
        >>> from flowlib.bases import StandardNormal
        >>> ax = density(StandardNormal(2), ((-3, 3), (-3, 3)), n=50)
        >>> plt.close(ax.figure)
    """
    like, (horizontal, vertical) = _like(what), _box(box)
    x, y = (low + (high - low) * (np.arange(n) + 0.5) / n for low, high in (horizontal, vertical))
    grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    log_prob = getattr(what, "log_prob", what)
    with torch.no_grad():
        chunks = torch.as_tensor(grid).to(like).split(1 << 14)
        values = torch.cat([log_prob(chunk).double().cpu() for chunk in chunks])
    wrong = grid[values.isnan() | (values == torch.inf)]
    if len(wrong):
        where = f"{len(wrong)} of {len(values)} points, the first at {wrong[0].round(4).tolist()}"
        raise ValueError(f"The log-density is NaN or +infinity at {where}; draw a box where it is defined.")
    ax = ax or panels(1, width=4.0)[1][0]
    options = {"vmin": 0.0, "origin": "lower", "extent": (*horizontal, *vertical), **options}
    ax.imshow(values.exp().reshape(n, n).numpy(), **options)
    return ax


def samples(x: Tensor, ax: Axes | None = None, box: Box | None = None, **options: Any) -> Axes:
    """Draw points ``(N, 2)`` as small translucent dots on axes of equal scale.

    Args:
        x: the points.
        ax: where to draw; a new figure if not given.
        box: what to show; all points if not given.
        options: for ``Axes.scatter``, such as ``color`` or ``c``, ``s`` and ``label``.

    Raises:
        ValueError: if ``x`` does not have the shape ``(N, 2)``.

    Example:
        >>> ax = samples(torch.zeros(3, 2), box=((-1, 1), (-1, 1)))
        >>> plt.close(ax.figure)
    """
    points = _points(x, "x")
    ax = ax or panels(1, width=4.0)[1][0]
    colour = {} if "c" in options else {"color": COLOURS[0]}
    options = {"s": 5, "alpha": 0.4, "linewidths": 0, "rasterized": True, **colour, **options}
    ax.scatter(points[:, 0], points[:, 1], **options)
    return _frame(ax, box)


def warped_grid(
    function: Callable[[Tensor], Any], box: Box, ax: Axes | None = None, n: int = 16, fine: int = 12
) -> Axes:
    """Draw the image of a coordinate grid: how a map stretches, turns and folds the plane.

    Lines of constant first coordinate are blue, lines of constant second coordinate red. The four
    quadrants of the box are tinted (from the upper right, counter-clockwise: orange, sky blue, green,
    purple), so that a reversed order shows a reflection and a darker overlap shows a fold.

    Args:
        function: maps points ``(N, 2)`` to points ``(N, 2)``; or a layer, which means its forward map.
        box: the square or rectangle that is mapped.
        ax: where to draw; a new figure if not given.
        n: grid cells along each side, an even number.
        fine: straight pieces that each grid line has in one cell.

    Raises:
        ValueError: if ``n`` is odd or the images are not of the shape ``(N, 2)``.

    Example:
        >>> ax = warped_grid(lambda z: z**3, ((-1, 1), (-1, 1)))
        >>> plt.close(ax.figure)
    """
    if n < 2 or n % 2:
        raise ValueError(f"n must be even, so that grid lines part the quadrants, and came as {n}.")
    sides = [np.linspace(low, high, n * fine + 1) for low, high in _box(box)]
    grid = np.stack(np.meshgrid(*sides), -1).reshape(-1, 2)
    image = function(torch.as_tensor(grid).to(_like(function)))
    image = image[0] if isinstance(image, tuple) else image
    x, y = _points(image, "function(z)").reshape(n * fine + 1, n * fine + 1, 2).transpose(2, 0, 1)

    ax = ax or panels(1, width=4.0)[1][0]
    cells = []  # one polygon with bent sides for each: pixels of seams would show as a pattern
    for i, j in np.ndindex(n, n):
        a, b = slice(i * fine, (i + 1) * fine + 1), slice(j * fine, (j + 1) * fine + 1)
        xy = np.stack([x[a, b], y[a, b]], -1)
        cells.append(np.concatenate([xy[0], xy[:, -1], xy[-1, ::-1], xy[::-1, 0]]))
    up, right = (np.indices((n, n)) >= n // 2).reshape(2, -1)
    ax.add_collection(PolyCollection(cells, facecolors=_tints(right, up), edgecolors="none", alpha=0.3))
    for k in range(0, n * fine + 1, fine):
        width = 2.0 if k == n * fine // 2 else 0.8
        ax.plot(x[:, k], y[:, k], color=COLOURS[0], linewidth=width)
        ax.plot(x[k], y[k], color=COLOURS[1], linewidth=width)
    return _frame(ax, None)


def trajectory(
    flow: Flow, z: Tensor | int, box: Box, steps: Sequence[int] = (), show: str = "samples", **options: Any
) -> np.ndarray:
    r"""Draw every step :math:`z = u^0 \to u^1 \to \dots \to u^K = x`, one panel each.

    Args:
        flow: a flow on the plane.
        z: latent points ``(N, 2)``, or how many to draw (with seed 0).
        box: what every panel shows.
        steps: which :math:`k` to show; all if not given, or 12 evenly spaced ones if there are more.
        show: ``"samples"`` draws the points :math:`u^k` in the colour of the quadrant that each started
            in (about the median of ``z``); ``"density"`` draws :math:`P_k` by the inverse of the first
            :math:`k` layers.
        options: for :func:`samples` or :func:`density`.

    Returns:
        the Axes of the panels, whose figure is ``axes[0].figure``.

    Raises:
        ValueError: if ``show`` is another word or a step is not between 0 and K.

    Example:
        >>> from flowlib.bases import StandardNormal
        >>> from flowlib.bijection import Compose
        >>> axes = trajectory(Flow(Compose([]), StandardNormal(2)), 100, ((-3, 3), (-3, 3)))
        >>> [ax.get_title() for ax in axes]
        ['$u^0$']
        >>> plt.close(axes[0].figure)
    """
    if show not in ("samples", "density"):
        raise ValueError(f'show must be "samples" or "density" and came as {show!r}.')
    last = len(flow.layers)
    steps = steps or [round(k) for k in np.linspace(0, last, min(last + 1, 12))]
    if not all(0 <= k <= last for k in steps):
        raise ValueError(f"steps must lie between 0 and {last}, the number of layers, and came as {steps}.")
    if isinstance(z, int):
        z = flow.base.sample(z, torch.Generator().manual_seed(0))
    points = [u for u, _ in flow.trajectory(z)]
    colours = _tints(*(z > z.median(0).values).T.cpu().numpy())

    _, axes = panels(len(steps))
    for k, ax in zip(steps, axes, strict=True):
        if show == "samples":
            samples(points[k], ax, box, **{"c": colours, "alpha": 0.6, **options})
        else:
            density(Flow(flow.layers[:k], flow.base), box, ax, **options)
        ax.set_title(f"$u^{{{k}}}$" if k > 9 else f"$u^{k}$")
        ax.locator_params(nbins=4, prune="both")
        ax.label_outer()
    return axes


def loss(history: Any, ax: Axes | None = None, entropy: float | None = None) -> Axes:
    """Draw a training curve: every step pale, their running mean dark.

    Args:
        history: what ``fit`` returned, or a sequence of losses in nats.
        ax: where to draw; a new figure if not given.
        entropy: of the data, the floor that no model's expected loss can pass; a dashed line.

    Example:
        >>> ax = loss([3.0, 2.5, 2.2, 2.1], entropy=2.0)
        >>> plt.close(ax.figure)
    """
    values = np.asarray(getattr(history, "loss", history), dtype=float)
    ax = ax or panels(1, aspect=0.5)[1][0]
    window = max(len(values) // 50, 1)
    ax.plot(values, color=COLOURS[5], linewidth=0.8, alpha=0.7)
    mean = np.convolve(values, np.ones(window) / window, mode="valid")
    ax.plot(np.arange(len(mean)) + (window - 1) / 2, mean, color=COLOURS[0])
    if entropy is not None:
        floor = f"entropy {entropy:.3f}: the floor"
        ax.axhline(entropy, color=COLOURS[6], linestyle="--", linewidth=1.2, label=floor)
        ax.legend(loc="upper right")
    ax.set(xlabel="step", ylabel="loss in nats")
    return ax


def images(
    x: Tensor, ax: Axes | None = None, columns: int = 10, low: float = 0.0, high: float | None = None
) -> Axes:
    """Draw images side by side, row after row, with a white pixel between neighbours.

    Values are clipped to the range: ``low`` is black and ``high`` is white, or full colour. For dark ink on
    white paper give the larger value as ``low``.

    Args:
        x: the images, shape ``(N, C, H, W)``: grey with C = 1, red, green and blue with C = 3.
        ax: where to draw; a new figure if not given.
        columns: images in a row, or all of them if there are fewer.
        low, high: the range that is shown; ``high`` is the largest value if not given.

    Raises:
        ValueError: if ``x`` has another shape, holds no image or a value that is not finite, or ``high``
            and ``low`` are equal.

    Example:
        >>> ax = images(torch.arange(48.0).reshape(3, 1, 4, 4))
        >>> ax.images[0].get_size()  # three tiles of 4 x 4 and two gaps
        (4, 14)
        >>> plt.close(ax.figure)
    """
    x = torch.as_tensor(x).detach().double().cpu()
    if x.dim() != 4 or x.shape[1] not in (1, 3) or not x.numel():
        wanted = "shape (N, C, H, W), with C = 1 for grey or 3 for colour"
        raise ValueError(f"x must have {wanted}, and came as {tuple(x.shape)}.")
    check_finite(x, "x")
    if high is None:
        high = float(x.max()) if x.max() > low else low + 1  # nothing above low: all is black
    if high == low:
        raise ValueError(f"high and low must differ; both came as {low:g}.")
    n, _, height, width = x.shape
    columns = min(n, columns)
    rows = -(-n // columns)
    sheet = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1, 3))
    shades = ((x - low) / (high - low)).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    for k, tile in enumerate(shades):
        top, left = k // columns * (height + 1), k % columns * (width + 1)
        sheet[top : top + height, left : left + width] = tile
    ax = ax or panels(1, aspect=sheet.shape[0] / sheet.shape[1])[1][0]
    ax.imshow(sheet)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def _tints(right: np.ndarray, up: np.ndarray) -> np.ndarray:
    """The colour of each point's quadrant, from the upper right counter-clockwise."""
    return np.array(COLOURS)[np.where(up, np.where(right, 4, 5), np.where(right, 3, 2))]


def _like(what: Any) -> Tensor:
    """An empty tensor in the precision and on the device in which ``what`` computes."""
    module = getattr(what, "__self__", what)  # a method such as flow.decode belongs to its flow
    tensors = chain(module.parameters(), module.buffers()) if isinstance(module, nn.Module) else ()
    return next((tensor.new_empty(()) for tensor in tensors if tensor.is_floating_point()), torch.empty(()))


def _points(x: Tensor, name: str) -> np.ndarray:
    points = torch.as_tensor(x).detach().double().cpu().numpy()
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"{name} must have shape (N, 2), points of the plane, and came as {points.shape}.")
    return points


def _box(box: Box) -> Box:
    (left, right), (bottom, top) = box
    if not (left < right and bottom < top):
        raise ValueError(f"box must be ((low, high), (low, high)) with low below high, and came as {box!r}.")
    return box


def _frame(ax: Axes, box: Box | None) -> Axes:
    """Equal scales on both axes, limited to the box if there is one."""
    ax.set_aspect("equal")
    if box is not None:
        ax.set(xlim=_box(box)[0], ylim=box[1])
    return ax


__all__ = [
    "COLOURS", "density", "images", "loss", "panels", "samples", "trajectory", "use_style", "warped_grid",
]  # fmt: skip
