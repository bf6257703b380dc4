"""Training: maximum likelihood or flow matching on data, reverse KL on an energy. The loop is ``loop.py``.

Long trainings survive: a checkpoint is always whole, and a run that goes on from it ends as if nothing
had happened. ``python -m flowlib.train --help`` trains from the command line.
"""

from flowlib.train.checkpoint import CheckpointError, load_checkpoint, load_parameters, save_checkpoint
from flowlib.train.flow_for import flow_for
from flowlib.train.loop import fit
from flowlib.train.matching import fit_matching, matching_loss, straight_path
from flowlib.train.report import History
from flowlib.train.reverse_kl import fit_reverse_kl

__all__ = [
    "CheckpointError",
    "History",
    "fit",
    "fit_matching",
    "fit_reverse_kl",
    "flow_for",
    "load_checkpoint",
    "load_parameters",
    "matching_loss",
    "save_checkpoint",
    "straight_path",
]
