"""Normalizing flows that read like their formulas: :math:`x = f(z)`, one idea per file.

Importing flowlib needs torch and numpy alone; ``flowlib.plots`` needs matplotlib.
"""

from flowlib import check
from flowlib.bases import Base, StandardNormal, UniformBox
from flowlib.bijection import Bijection, Compose, Inverse
from flowlib.coupling import AdditiveCoupling, AffineCoupling, Permute, Scale
from flowlib.flow import Flow, FlowDistribution
from flowlib.linear import Triangular
from flowlib.models import MODELS
from flowlib.planar import Planar
from flowlib.radial import Radial
from flowlib.train import History, fit, fit_reverse_kl

__version__ = "0.1.0"

__all__ = [
    "MODELS",
    "AdditiveCoupling",
    "AffineCoupling",
    "Base",
    "Bijection",
    "Compose",
    "Flow",
    "FlowDistribution",
    "History",
    "Inverse",
    "Permute",
    "Planar",
    "Radial",
    "Scale",
    "StandardNormal",
    "Triangular",
    "UniformBox",
    "check",
    "fit",
    "fit_reverse_kl",
]
