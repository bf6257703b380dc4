"""Draws the still picture of the page Draw a density: python book/draw_figure.py

What the page shows after its 1,500 steps, by flowlib: for print, and where scripts are off.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

from flowlib import MODELS, fit, plots
from flowlib.data import TwoMoons

BOX = ((-4.5, 4.5), (-4.5, 4.5))
torch.set_default_dtype(torch.float64)
points = 2.2 * (
    TwoMoons().sample(800, generator=torch.Generator().manual_seed(0)) - torch.tensor([0.5, 0.25])
)

torch.manual_seed(0)
flow = MODELS["realnvp"](hidden=(32, 32))
noisy = points.repeat(40, 1)
fit(flow, noisy + 0.06 * torch.randn_like(noisy), steps=1500, lr=5e-3)

figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.8), facecolor="white", layout="constrained")
axes[0].scatter(*points.T, s=3, color=plots.COLOURS[1], linewidths=0)
plots.density(flow, BOX, axes[1])
plots.warped_grid(flow.bijection, ((-3, 3), (-3, 3)), axes[2])
for ax, title in zip(axes, ["points", "the density learned", "the grid of z, carried to x"], strict=True):
    ax.set(title=title, xlim=BOX[0], ylim=BOX[1], aspect="equal")
figure.savefig(Path(__file__).parent / "_static" / "draw.png", dpi=90)
