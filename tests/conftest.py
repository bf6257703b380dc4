"""What every test starts from: one thread, one seed, float32 by default, no display."""

from __future__ import annotations

import os
import signal

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib

import pytest
import torch

# what a shell runs in the background ignores Ctrl-C, and some tests press it
signal.signal(signal.SIGINT, signal.default_int_handler)
# two busy cores with two threads each are many times slower than with one
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_start():
    """Give each test the same random state and default dtype, whatever ran before it."""
    dtype = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(dtype)


@pytest.fixture
def close_figures():
    """Close what the test drew."""
    import matplotlib.pyplot as plt

    yield
    plt.close("all")
