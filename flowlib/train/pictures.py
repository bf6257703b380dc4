"""Pictures of samples while training goes on, always from the same latents."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowlib.flow import Flow
from flowlib.layers.dequantize import levels_of
from flowlib.train.files import replacing
from flowlib.train.randomness import own_random_state


class Pictures:
    """A folder of PNG files, one for each look: a sheet of images, or points on the plane."""

    def __init__(
        self, flow: Flow, folder: str | os.PathLike[str], every: int, context: Tensor | None, seed: int
    ) -> None:
        shape = tuple(flow.event_shape)
        self.images = len(shape) == 3 and shape[0] in (1, 3)
        if not self.images and shape != (2,):
            raise ValueError(
                "samples can be drawn of images (C, H, W), with C = 1 or 3, and of points on the plane; "
                f"this flow's points have shape {shape}. Leave samples out."
            )
        from flowlib import plots

        self.plots: Any = plots
        n = 64 if self.images else 1000
        if context is not None:
            context = context[:n].to(flow.base.device)
            n = len(context)
        self.folder, self.every, self.context, self.seed = Path(folder), every, context, seed
        self.latents = flow.base.sample(n, torch.Generator().manual_seed(seed))
        levels = levels_of(flow)
        self.high = None if levels is None else levels - 1
        if not self.folder.is_dir():
            if self.folder.exists() or not self.folder.parent.is_dir():
                raise ValueError(
                    f"samples={str(folder)!r} must be a folder, or a new name in one that exists: make that "
                    "first, or mount the drive that should hold it."
                )
            self.folder.mkdir()

    def due(self, step: int) -> bool:
        return step % self.every == 0

    @torch.no_grad()
    def draw(self, model: Flow, step: int) -> None:
        """Write one picture; a failure is a warning, since no picture is worth a training."""
        path, was_training = self.folder / f"step_{step:06d}.png", model.training
        try:
            with own_random_state(model.base.device, self.seed):
                points = model.eval().decode(self.latents, self.context)
            with replacing(path, self._png(points, step)):
                pass
        except (OSError, RuntimeError, ValueError) as error:
            warnings.warn(f"No picture of the samples after step {step}: {error}", stacklevel=2)
        finally:
            model.train(was_training)

    def _png(self, points: Tensor, step: int) -> bytes:
        if self.images:
            axes = self.plots.images(points.nan_to_num(0.0), columns=8, high=self.high)
        else:
            axes = self.plots.samples(points[points.isfinite().all(1)])
        axes.set_title(f"after {step} steps")
        file, figure = io.BytesIO(), axes.figure
        figure.savefig(file, format="png")
        self.plots.plt.close(figure)
        return file.getvalue()
