"""Draws the figure of the start page: python book/start_figure.py

Eight coupling layers learn two moons. A point keeps the colour of its angle in the latent
space, so that the eye can follow it from panel to panel.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import LinearSegmentedColormap

from flowlib import MODELS, fit, plots
from flowlib.data import TwoMoons

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
flow = MODELS["realnvp"]()
fit(flow, TwoMoons(), steps=2000, batch_size=512)

z = flow.base.sample(6000, generator=torch.Generator().manual_seed(1))
with torch.no_grad():
    path = [u for u, _ in flow.trajectory(z)]
angle = torch.atan2(z[:, 1], z[:, 0])
blue, vermilion, green, purple, orange, sky, *_ = plots.COLOURS
wheel = LinearSegmentedColormap.from_list("wheel", [blue, sky, green, orange, vermilion, purple, blue])
sides = torch.tensor([-1.0, 1.0])
shown = [0, 2, 4, 6, len(path) - 1]

figure, axes = plt.subplots(1, len(shown), figsize=(15, 3.3), facecolor="white", layout="constrained")
figure.get_layout_engine().set(h_pad=0.12)
for ax, k in zip(axes, shown, strict=True):
    low, high = path[k].quantile(torch.tensor([0.001, 0.999]), dim=0)
    centre, half = (low + high) / 2, (high - low).max() / 1.8
    ax.scatter(*path[k].T, c=angle, cmap=wheel, s=3, linewidths=0)
    ax.set(
        aspect="equal", xlim=(centre[0] - half, centre[0] + half), ylim=(centre[1] - half, centre[1] + half)
    )
    ax.axis("off")
    ax.set_title(f"$u^{{{k}}}$", fontsize=24)
figure.savefig(Path(__file__).parent / "_static" / "start.png", dpi=110)
