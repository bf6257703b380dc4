"""Normalizing flows that read like their formulas: :math:`x = f(z)`, one idea per file.

Importing flowlib needs torch and numpy alone; ``flowlib.plots`` needs matplotlib.
"""

from flowlib import check
from flowlib.attention import AttentionNet
from flowlib.autoregressive import AffineAutoregressive
from flowlib.bases import Base, StandardNormal, UniformBox
from flowlib.bijection import Bijection, Compose, Inverse
from flowlib.convolution import Convolution1x1, ConvolutionLU
from flowlib.coupling import AdditiveCoupling, AffineCoupling, Permute, Scale
from flowlib.dequantize import Dequantize, Logit, VariationalDequantize, bits_per_dim
from flowlib.ffjord import FFJORD, Velocity
from flowlib.flow import Flow, FlowDistribution
from flowlib.flowpp import MixtureCoupling
from flowlib.glow import ActNorm, ChannelCoupling
from flowlib.linear import Triangular
from flowlib.made import MADE
from flowlib.models import MODELS
from flowlib.multiscale import OnChannels, Squeeze
from flowlib.ode import Dopri5, RungeKutta
from flowlib.planar import Planar
from flowlib.radial import Radial
from flowlib.spline import SplineAutoregressive, SplineCoupling
from flowlib.train import History, fit, fit_reverse_kl
from flowlib.vflow import Augment, VFlow
from flowlib.wavelet import Haar, WaveletFlow

__version__ = "0.1.0"

__all__ = [
    "FFJORD",
    "MADE",
    "MODELS",
    "ActNorm",
    "AdditiveCoupling",
    "AffineAutoregressive",
    "AffineCoupling",
    "AttentionNet",
    "Augment",
    "Base",
    "Bijection",
    "ChannelCoupling",
    "Compose",
    "Convolution1x1",
    "ConvolutionLU",
    "Dequantize",
    "Dopri5",
    "Flow",
    "FlowDistribution",
    "Haar",
    "History",
    "Inverse",
    "Logit",
    "MixtureCoupling",
    "OnChannels",
    "Permute",
    "Planar",
    "Radial",
    "RungeKutta",
    "Scale",
    "SplineAutoregressive",
    "SplineCoupling",
    "Squeeze",
    "StandardNormal",
    "Triangular",
    "UniformBox",
    "VFlow",
    "VariationalDequantize",
    "Velocity",
    "WaveletFlow",
    "bits_per_dim",
    "check",
    "fit",
    "fit_reverse_kl",
]
