"""Normalizing flows that read like their formulas: :math:`x = f(z)`, one idea per file.

Three storeys: the ground (``bijection``, ``flow``, ``bases``, ``nets``), one lecture's idea a file in
``layers``, and what uses them (``models``, ``check``, ``plots``, ``data``, ``train``). Importing flowlib
needs torch and numpy alone; ``flowlib.plots`` needs matplotlib.
"""

from flowlib import check
from flowlib.bases import Base, StandardNormal, UniformBox
from flowlib.bijection import Bijection, Compose, Inverse
from flowlib.flow import Flow, FlowDistribution
from flowlib.layers.autoregressive import MADE, AffineAutoregressive
from flowlib.layers.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    Permute,
    Scale,
    alternating_mask,
    channel_mask,
    checkerboard_mask,
    half_mask,
)
from flowlib.layers.dequantize import Dequantize, Logit, VariationalDequantize, bits_per_dim
from flowlib.layers.ffjord import FFJORD, Dopri5, Euler, RungeKutta, Velocity
from flowlib.layers.flowpp import MixtureCoupling, mixture_logit, solve_mixture_logit
from flowlib.layers.glow import ActNorm, ChannelCoupling, Convolution1x1, ConvolutionLU
from flowlib.layers.linear import Triangular
from flowlib.layers.multiscale import Flatten, OnChannels, Squeeze
from flowlib.layers.planar import Planar, PlanarStack, fixed_point_inverse, solve_planar
from flowlib.layers.radial import Radial
from flowlib.layers.spline import SplineAutoregressive, SplineCoupling
from flowlib.layers.tarflow import CausalTransformer, TarFlowBlock, denoise
from flowlib.layers.vflow import Augment, VFlow
from flowlib.layers.wavelet import Haar, WaveletFlow
from flowlib.models import MODELS
from flowlib.nets import MLP, AttentionNet, Conditioner, ConvNet
from flowlib.train import History, fit, fit_matching, fit_reverse_kl, matching_loss, straight_path

__version__ = "0.1.0"
