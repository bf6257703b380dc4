"""Training: maximum likelihood on data, and reverse KL against an energy. The loop is in ``loop.py``.

Long trainings survive: a checkpoint is always whole, and a run that goes on from it ends as if nothing
had happened. ``python -m flowlib.train --help`` trains from the command line.
"""

from flowlib.train.checkpoint import CheckpointError, load_checkpoint, load_parameters, save_checkpoint
from flowlib.train.flow_for import Flatten, flow_for
from flowlib.train.loop import fit
from flowlib.train.report import History
from flowlib.train.reverse_kl import fit_reverse_kl

__all__ = [
    "CheckpointError",
    "Flatten",
    "History",
    "fit",
    "fit_reverse_kl",
    "flow_for",
    "load_checkpoint",
    "load_parameters",
    "save_checkpoint",
]
