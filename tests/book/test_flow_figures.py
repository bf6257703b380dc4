"""The interactive figures: their arithmetic is flowlib's, and keyboard and touch move them.

They are opened from a file, as a reader does who has no server.
"""

from __future__ import annotations

import base64
import json
import math
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, BrowserContext, Locator, Page
from torch import Tensor
from torch.distributions import AffineTransform, Distribution, ExpTransform, TransformedDistribution

from flowlib import (
    FFJORD,
    MADE,
    AdditiveCoupling,
    AffineCoupling,
    Augment,
    Bijection,
    Compose,
    Dequantize,
    Euler,
    Flow,
    Haar,
    Logit,
    Planar,
    RungeKutta,
    Scale,
    StandardNormal,
    TarFlowBlock,
    UniformBox,
    bits_per_dim,
    check,
    mixture_logit,
    solve_mixture_logit,
)
from flowlib.data import digits
from flowlib.layers.coupling import half_mask
from tests.book.conftest import on_a_phone
from tests.book.visits import PHONE, Visit

pytestmark = pytest.mark.browser

STATIC = Path(__file__).parents[2] / "book" / "_static"
# what the probe moves along, in the figures that have one
PROBED = {"planar": "z", "coupling": "z", "field": "z", "change": "z", "mixture": "x"}
PROBED |= {"compose": "z", "temperature": "z"}
# neither a probe nor a plane: sliders, a picture and numbers
ALONE = ["latent", "dequantise", "cost", "film"]
FIGURES = [*PROBED, "haar", "lift", "made", "reflow", "choose", "tarflow", *ALONE]
ELSEWHERE = ["glow-read", "glow-sample", "draw"]  # placed in the book too, and tested in files of their own
# sliders that must leave the log-det alone, by their labels
STILL = {"coupling": "c,", "mixture": "n,", "compose": "w,"}
PLANES = ["planar", "coupling", "field", "compose", "temperature"]
on = pytest.mark.figure
PAGE = """<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>Figures</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="{static}/flow-figures.css"><script src="{static}/flow-figures.js"></script>
</head><body>{figures}</body></html>"""


@pytest.fixture(autouse=True)
def _float64(same_start: None) -> None:
    torch.set_default_dtype(torch.float64)  # JavaScript's only number


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Writes a small page with these figures."""
    folder = tmp_path_factory.mktemp("figures")

    def write(*names: str) -> str:
        figures = (f'<div class="flow-figure" data-figure="{name}">See the book.</div>' for name in names)
        file = folder / f"{'-'.join(names)}.html"
        file.write_text(PAGE.format(static=STATIC.as_uri(), figures="".join(figures)), "utf-8")
        return file.as_uri()

    return write


@pytest.fixture
def page(
    phone: BrowserContext, address: Callable[..., str], request: pytest.FixtureRequest
) -> Iterator[Page]:
    """A fresh page to touch, with the one figure that the test names as its parameter or by ``on``."""
    mark = request.node.get_closest_marker("figure")
    figure = mark.args[0] if mark else request.node.callspec.params["figure"]
    with on_a_phone(phone, address(figure)) as page:
        settle(page)
        yield page


@pytest.fixture(scope="module")
def whole(phone: BrowserContext, address: Callable[..., str]) -> Iterator[Page]:
    """One page with all figures and one that does not exist, for tests that calculate and look."""
    missing = "Failed to load resource: net::ERR_FILE_NOT_FOUND"  # none.js
    told = [missing, 'No interactive figure is called "none".']
    with on_a_phone(phone, address(*FIGURES, "none"), told) as page:
        settle(page)
        yield page


def settle(page: Page) -> None:
    """Wait until what was asked for is drawn."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


# --- the arithmetic ------------------------------------------------------------------


def close(name: str, ours: list, theirs: Tensor) -> None:
    """Compare to 1e-6, absolute for small numbers and relative for large ones."""
    torch.testing.assert_close(
        torch.tensor(ours, dtype=theirs.dtype),
        theirs.detach(),
        rtol=1e-6,
        atol=1e-6,
        msg=lambda text: f"{name}: {text}",
    )


def compare_layers(
    page: Page, name: str, parameters: list[dict], layers: Bijection | list[Bijection], z: Tensor
) -> None:
    """Both directions and the pushed density of many layers, or of one with numbers for each point."""
    runs = page.evaluate(
        """([name, parameters, points]) => parameters.map((p, i) => {
            const layer = flowFigures.math[name](p);
            const [[x, logDet], [z, back]] = [layer.forward(points[i]), layer.inverse(points[i])];
            return [x, logDet, z, back, layer.density(points[i])];
        })""",
        [name, parameters, z.tolist()],
    )
    groups = zip(layers, z[:, None], strict=True) if isinstance(layers, list) else [(layers, z)]
    theirs = [
        (*layer(points), *layer.inverse(points), Flow(layer, StandardNormal(2)).log_prob(points).exp())
        for layer, points in groups
    ]
    said = ("forward", "log-det", "inverse", "log-det of the inverse", "density")
    for what, ours, values in zip(said, zip(*runs, strict=True), zip(*theirs, strict=True), strict=True):
        close(what, list(ours), torch.cat(values))


def planar_layer(u: list[float], w: list[float], b: float) -> Planar:
    layer = Planar(2)
    with torch.no_grad():
        layer.u.copy_(torch.tensor(u))
        layer.w.copy_(torch.tensor(w))
        layer.b.fill_(b)
    return layer


def coupling_layer(a: float, k: float, c: float) -> AffineCoupling:
    bound = 2.0

    def conditioner(z: Tensor, context: Tensor | None) -> Tensor:
        raw = bound * torch.atanh(a * torch.tanh(k * z[:, :1]) / bound)
        shift = c * torch.sin(z[:, :1])
        return torch.cat([raw, shift], 1)

    return AffineCoupling(half_mask(2, 1), conditioner, bound)


def field_layer(
    t: Tensor | float,
    a: Tensor | float,
    omega: Tensor | float,
    c: Tensor | float,
    steps: int = 16,
) -> FFJORD:
    """One field, or one for each point where the numbers are vectors."""

    def velocity(x: Tensor, time: float, context: Tensor | None) -> Tensor:  # t units of time in one
        x1, x2 = x.T
        return (t * torch.stack([a * x1 - omega * x2, omega * x1 + c * torch.tanh(x2)])).T

    return FFJORD(velocity, solver=RungeKutta(steps))


def test_planar_is_flowlibs(whole: Page) -> None:
    draw = torch.Generator().manual_seed(1)
    numbers = (3 * torch.randn(200, 5, generator=draw)).tolist()
    # u·w far below -1, where it is clipped, and far above
    numbers += [[-1000.0, 0.5, 1.0, 0.0, 0.3], [1000.0, -2.0, 1.0, 0.0, -0.7]]
    numbers += [[-500.0, 500.0, 1.0, -1.0, 0.0], [-31.6, 0.0, 31.6, 0.0, 0.1]]
    numbers += [[0.7, -0.4, 0.0, 0.0, 1.2], [2.0, 1.0, 1e-9, -1e-9, 0.5]]  # w = 0: a translation
    parameters = [{"u": n[:2], "w": n[2:4], "b": n[4]} for n in numbers]
    layers = [planar_layer(**values) for values in parameters]
    compare_layers(whole, "planar", parameters, layers, 2 * torch.randn(len(numbers), 2, generator=draw))

    effective = whole.evaluate(
        "all => all.map(p => { const {uHat, m} = flowFigures.math.planar(p); return [...uHat, m]; })",
        parameters,
    )
    expected = torch.stack([torch.cat([layer.u_hat, layer.effective()[3][None]]) for layer in layers])
    close("û and û·w", effective, expected)
    assert min(row[2] for row in effective) > -1


def test_coupling_is_flowlibs(whole: Page) -> None:
    draw = torch.Generator().manual_seed(2)
    numbers = (torch.rand(200, 3, generator=draw) * 2 - 1) * torch.tensor([1.5, 4.0, 2.0])
    parameters = [dict(zip("akc", row, strict=True)) for row in numbers.tolist()]
    layers = [coupling_layer(**values) for values in parameters]
    compare_layers(whole, "coupling", parameters, layers, 2 * torch.randn(200, 2, generator=draw))


def test_field_is_flowlibs(whole: Page) -> None:
    draw = torch.Generator().manual_seed(4)
    # what the sliders reach, and its corners
    most = torch.tensor([1.0, 1.0, 3.0, 2.0])
    numbers = torch.cat(
        [torch.rand(100, 4, generator=draw) * 2 - 1, torch.tensor([[1.0, 1, 1, 1], [-1, -1, 1, 1]])]
    )
    names = ("t", "a", "omega", "c")
    parameters = [dict(zip(names, row, strict=True)) for row in (numbers * most).tolist()]
    z = 1.5 * torch.randn(len(parameters), 2, generator=draw)
    compare_layers(whole, "field", parameters, field_layer(*(numbers * most).T), z)
    # without the bend: the matrix exponential
    exact = whole.evaluate(
        "([all, z]) => all.map((p, i) => flowFigures.math.field({...p, c: 0}, 200).forward(z[i]).flat())",
        [parameters, z.tolist()],
    )
    for run, values, point in zip(exact, parameters, z, strict=True):
        a, omega = values["a"], values["omega"]
        matrix = values["t"] * torch.tensor([[a, -omega], [omega, 0.0]])
        close(
            "exp(tA) z and t tr A",
            run,
            torch.cat([torch.linalg.matrix_exp(matrix) @ point, matrix.trace()[None]]),
        )
    paths = whole.evaluate(
        "([p, z]) => { const f = flowFigures.math.field(p); return [f.path(z), f.velocity(z), f.trace(z)]; }",
        [parameters[0], z[0].tolist()],
    )
    first = field_layer(**parameters[0])
    close("path ends at x", paths[0][-1], first(z[:1])[0][0])
    close("path begins at z", paths[0][0], z[0])
    unscaled = field_layer(**parameters[0] | {"t": 1.0})
    jacobian = torch.func.jacrev(lambda p: unscaled.velocity(p[None], 0, None)[0])(z[0])
    close("trace", [paths[2]], jacobian.trace()[None])


def pushed_density(base: str, mapping: str, a: float, x: Tensor) -> Tensor:
    """p_X(x) by torch.distributions, and by a planar layer of one dimension for the map it lacks."""
    if mapping == "bend":
        law = UniformBox(1, 0.0, 2.0) if base == "uniform" else StandardNormal(1)
        return Flow(Planar.from_effective([1.0], [a], 0.0), law).log_prob(x[:, None]).exp()
    zero, one = torch.tensor(0.0), torch.tensor(1.0)
    law: Distribution = (
        torch.distributions.Uniform(zero, 2 * one, validate_args=False)
        if base == "uniform"
        else torch.distributions.Normal(zero, one)
    )
    steps = {
        "stretch": [AffineTransform(0.0, a)],
        "reverse": [AffineTransform(0.0, -a)],
        "exp": [AffineTransform(0.0, a), ExpTransform()],
    }
    return TransformedDistribution(law, steps[mapping], validate_args=False).log_prob(x).exp()


@pytest.mark.parametrize("base", ["uniform", "normal"])
@pytest.mark.parametrize("mapping", ["stretch", "reverse", "exp", "bend"])
def test_change_of_variables_is_torchs(whole: Page, base: str, mapping: str) -> None:
    draw = torch.Generator().manual_seed(3)
    low, high = (-0.9, 4.0) if mapping == "bend" else (0.4, 3.0)
    for a in (low + (high - low) * torch.rand(20, generator=draw)).tolist():
        x = 4 * torch.randn(30, generator=draw)
        x = x.abs() if mapping == "exp" else x
        ours = whole.evaluate(
            """([spec, points]) => points.map(x => {
                const line = flowFigures.math.change(spec);
                const z = line.inverse(x);
                return [line.density(x), line.uncorrected(x), line.f(z),
                    line.baseDensity(z) / line.density(x), line.slope(z)];
            })""",
            [{"base": base, "map": mapping, "a": a}, x.tolist()],
        )
        density, uncorrected, again, ratio, slope = (list(column) for column in zip(*ours, strict=True))
        close(f"p_X for a = {a}", density, pushed_density(base, mapping, a, x))
        close(f"f(f⁻¹(x)) for a = {a}", again, x)
        supported = [i for i, p in enumerate(density) if p > 1e-12]
        assert supported
        close("|f'|", [ratio[i] for i in supported], torch.tensor([slope[i] for i in supported]).abs())
        close("without |f'|", uncorrected, torch.tensor(density) * torch.tensor(slope).abs())


def test_made_is_flowlibs(whole: Page) -> None:
    draw = torch.Generator().manual_seed(4)
    sizes = [(2, [1]), (3, [8, 3]), (4, [6, 6]), (6, [8, 8, 8]), (6, [2]), (6, [3, 1, 5])]
    networks = [
        {"order": torch.randperm(d, generator=draw).tolist(), "hidden": hidden} for d, hidden in sizes
    ]
    runs = whole.evaluate("all => all.map(network => flowFigures.math.made(network))", networks)
    for network, run in zip(networks, runs, strict=True):
        made = MADE(len(network["order"]), 1, network["hidden"], order=network["order"])
        paths = torch.eye(made.d)
        for ours, layer in zip(run["masks"], made.layers, strict=True):
            assert torch.equal(torch.tensor(ours).to(layer.mask), layer.mask)
            paths = layer.mask @ paths
        assert run["sees"] == paths.tolist()
        assert run["places"] == made.place.tolist()


def test_exp_reaches_no_negative_number(whole: Page) -> None:
    spec = "flowFigures.math.change({base: 'normal', map: 'exp', a: 1})"
    assert whole.evaluate(f"[-1, 0].map({spec}.density)") == [0, 0]


def test_mixture_is_flowlibs(whole: Page) -> None:
    draw = torch.Generator().manual_seed(4)
    numbers = torch.rand(200, 5, generator=draw) * torch.tensor([0.9, 8, 8, 1.8, 1.8])
    numbers += torch.tensor([0.05, -4, -4, 0.2, 0.2])
    x = 4 * torch.randn(200, generator=draw)
    x[:4] = torch.tensor([-300.0, -40.0, 40.0, 300.0])  # where F, as a number, is 0 or 1
    pi = torch.stack([numbers[:, 0], 1 - numbers[:, 0]])
    mean, scale = numbers[:, 1:3].T, numbers[:, 3:].T
    runs = whole.evaluate(
        """([rows, points]) => rows.map(([pi, mu1, mu2, s1, s2], i) => {
            const curve = flowFigures.math.mixture({pi: [pi, 1 - pi], mu: [mu1, mu2], s: [s1, s2]});
            const [z, logSlope] = curve.inverse(points[i]);
            const {low, high, middle} = curve.bisect(z, 8);
            return [z, logSlope, ...curve.forward(z), low, high, middle, curve.F(points[i]),
                curve.density(points[i])];
        })""",
        [numbers.tolist(), x.tolist()],
    )
    z, log_slope, back, minus, low, high, middle, F, density = (list(c) for c in zip(*runs, strict=True))
    level, slope = mixture_logit(x, pi.log(), mean, scale.log())
    close("g(x)", z, level)
    close("log g′(x)", log_slope, slope)
    close("x again", back, solve_mixture_logit(level, pi.log(), mean, scale.log()))
    close("log of the inverse's slope", minus, -slope)
    close("F(x)", F, torch.sigmoid(level))
    close("F′(x)", density, slope.exp() * torch.sigmoid(level) * torch.sigmoid(-level))
    ends = mean + scale * level
    close(
        "eight times halved", [a - b for a, b in zip(high, low, strict=True)], (ends[0] - ends[1]).abs() / 256
    )
    assert all(a - 1e-9 <= b <= c + 1e-9 for a, b, c in zip(low, x.tolist(), high, strict=True))
    close("midpoint", middle, (torch.tensor(low) + torch.tensor(high)) / 2)


@on("mixture")
def test_more_halvings_close_in_on_the_probe(page: Page) -> None:
    before = readout(page, "mixture")
    set_slider(page, "mixture", 5, 12)
    settle(page)
    after = readout(page, "mixture")
    assert after["z"] == before["z"]
    assert float(after["at most"]) < float(before["at most"]) / 50  # seven more halvings
    assert float(after["its error"]) <= float(after["at most"]) + 1e-4


def test_root_is_refused_where_it_is_not_unique(whole: Page) -> None:
    said = whole.evaluate(
        "(() => { try { flowFigures.math.solvePlanar(1, -1) } catch (e) { return e.message } })()"
    )
    assert said == "m must be greater than -1 for a unique root; it is -1."


def shrunk_details(image: Tensor, kept: int, factor: float) -> tuple[Tensor, list[Tensor], Tensor]:
    """The average, the details of each scale times their factors, coarsest first, and the image they give."""
    haar, average = Haar(), image
    details: list[Tensor] = []
    while average.shape[-1] > 1:
        average, bands = haar(average)[0].tensor_split([1], 1)
        details.insert(0, bands)
    scaled = [(factor if i < kept else 0.0) * bands for i, bands in enumerate(details)]
    picture = average
    for bands in scaled:
        picture = haar.inverse(torch.cat([picture, bands], 1))[0]
    return average, scaled, picture


@pytest.mark.parametrize("side", [2, 4, 8])
def test_haar_is_flowlibs(whole: Page, side: int) -> None:
    draw = torch.Generator().manual_seed(4)
    scales = side.bit_length() - 1
    for kept in range(scales + 1):
        image = 5 * torch.randn(1, 1, side, side, generator=draw)
        factor = float(0.1 + 2 * torch.rand((), generator=draw))
        ours = whole.evaluate(
            "setting => flowFigures.math.haar(setting)",
            {"image": image[0, 0].tolist(), "kept": kept, "factor": factor},
        )
        average, scaled, picture = shrunk_details(image, kept, factor)
        close("average", ours["average"], average[0, 0])
        close("picture", ours["picture"], picture[0, 0])
        for i, bands in enumerate(scaled):
            close(f"details of scale {i + 1}", ours["details"][i], bands[0])
        close("energy", ours["energy"], picture.square().sum() / image.square().sum())
        if kept < scales:
            assert ours["logDet"] == -math.inf
        else:
            dense = check.jacobian(lambda x, t=factor: shrunk_details(x, scales, t)[2], image)
            close("log-det", ours["logDet"], torch.linalg.slogdet(dense)[1][0])


def test_haar_shows_training_digits(whole: Page) -> None:
    shown = torch.tensor(whole.evaluate("flowFigures.math.haarDigits()"))
    images, labels = digits("train")
    found = [(images[:, 0] == digit).all((1, 2)).nonzero().flatten() for digit in shown]
    assert [labels[rows].tolist() for rows in found] == [[0], [2], [3], [5]]


def figures_tarflow() -> list[TarFlowBlock]:
    """The blocks whose weights the figure has, in float64."""
    text = (STATIC / "figures" / "tarflow_weights.js").read_text("utf-8")
    tensors = json.loads(re.search(r"tensors: (.*),", text)[1])
    packed = base64.b64decode(re.search(r'numbers: "(.*)"', text)[1])
    numbers = (
        torch.frombuffer(bytearray(packed), dtype=torch.int16)
        .double()
        .split([math.prod(shape) for _, shape, _ in tensors])
    )
    blocks = [
        TarFlowBlock((1, 8, 8), hidden=(24,), heads=2, context_features=10, flip=k % 2 == 1) for k in range(4)
    ]
    state = {
        name: scale * part.reshape(shape) for part, (name, shape, scale) in zip(numbers, tensors, strict=True)
    }
    torch.nn.ModuleList(blocks).load_state_dict(state)
    return blocks


def test_tarflow_is_flowlibs(whole: Page) -> None:
    z, blocks = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(4)), figures_tarflow()
    digits_asked = [0, 3, 7, 9]
    runs = whole.evaluate(
        "([all, digits]) => all.map((z, i) => flowFigures.math.tarflow(z, digits[i]))",
        [z.tolist(), digits_asked],
    )
    label = torch.eye(10)[digits_asked]
    image = z[:, None]
    for k, block in enumerate(blocks):
        close(f"into block {k + 1}", [run[k]["z"] for run in runs], image[:, 0])
        image, log_det = block(image, label)
        close(f"out of block {k + 1}", [run[k]["x"] for run in runs], image[:, 0])
        close(f"log-det of block {k + 1}", [run[k]["logDets"][-1] for run in runs], log_det)


def test_tarflows_weights_are_small_and_of_a_model_that_has_learned() -> None:
    assert (STATIC / "figures" / "tarflow_weights.js").stat().st_size < 200_000
    images, labels = digits("test")
    torch.manual_seed(0)
    flow = Flow([*figures_tarflow(), Logit(0.05), Dequantize(17)], StandardNormal((1, 8, 8)), 10)
    with torch.no_grad():
        log_p = flow.log_prob(images.double(), torch.eye(10)[labels])
    assert bits_per_dim(log_p.mean(), 64) < 2.35  # pixel histograms have 2.42


@on("tarflow")
@pytest.mark.parametrize("how", ["keyboard", "touch"])
def test_patches_are_written_one_by_one(page: Page, how: str) -> None:
    slider = page.locator("[data-figure=tarflow] input")
    before, seen = readout(page, "tarflow"), pictures(page, "tarflow")
    assert (before["block"], before["patch"], before["order"]) == ("4 of 4", "8 of 16", "last patch first")
    slider.scroll_into_view_if_needed()
    if how == "keyboard":
        slider.press("ArrowRight")
    else:
        box = slider.bounding_box()
        page.touchscreen.tap(box["x"] + 0.3 * box["width"], box["y"] + 8)
    settle(page)
    after, now = readout(page, "tarflow"), pictures(page, "tarflow")
    assert all(now[name] != seen[name] for name in seen)
    assert after["log |det|"] != before["log |det|"]
    if how == "keyboard":
        assert (after["block"], after["patch"]) == ("4 of 4", "9 of 16")
    status = page.locator("[data-figure=tarflow] .flow-summary[aria-live=polite]")
    page.wait_for_function("text => text.textContent.startsWith('Block')", arg=status.element_handle())


@on("tarflow")
def test_other_noise_another_digit_and_back(page: Page) -> None:
    before, seen = readout(page, "tarflow"), pictures(page, "tarflow")
    other, reset = page.locator("[data-figure=tarflow] button").all()
    other.click()
    settle(page)
    drawn = pictures(page, "tarflow")
    assert all(drawn[name] != seen[name] for name in seen)
    page.locator("[data-figure=tarflow] select").select_option("7")
    settle(page)
    assert pictures(page, "tarflow")["flow-lines"] != drawn["flow-lines"]
    reset.click()
    settle(page)
    assert readout(page, "tarflow") == before
    assert pictures(page, "tarflow") == seen


def lifted(a: float, k: float, sigma: float) -> Flow:
    """The joint of (x, e) by flowlib: a coupling that keeps e."""

    def conditioner(e: Tensor, context: Tensor | None) -> Tensor:
        raw = 2 * torch.atanh(torch.full_like(e, sigma).log() / 2)
        return torch.cat([raw, a * torch.tanh(k * e)], 1)

    return Flow(AffineCoupling(torch.tensor([False, True]), conditioner), StandardNormal(2))


def augmentation(m: float, r: float) -> Augment:
    """q(e | x) = N(m, r²), whatever x is."""
    layer = Augment(1, extra=1, hidden=())
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.h.layers[0].conditioner.layers[0].bias.copy_(torch.tensor([2 * math.atanh(math.log(r) / 2), m]))
    return layer


def test_lift_is_flowlibs(whole: Page) -> None:
    """The joint, the marginal as its integral, and the bound as VFlow's bracket averaged over q."""
    draw = torch.Generator().manual_seed(4)
    low, high = torch.tensor([[0.0, 0.2, 0.25, -2.0, 0.2], [2.5, 4.0, 1.0, 2.0, 1.5]])
    e, width = torch.linspace(-13, 13, 4001), 26 / 4000
    for values in (low + (high - low) * torch.rand(30, 5, generator=draw)).tolist():
        parameters = dict(zip(["a", "k", "sigma", "m", "r"], values, strict=True))
        x = 2 * torch.randn(1, generator=draw)
        found = whole.evaluate(
            """([parameters, x]) => {
                const lift = flowFigures.math.lift(parameters);
                return [lift.logJoint(x, 0.7), lift.logQ(0.7), lift.marginal(x), lift.bound(x)];
            }""",
            [parameters, x.item()],
        )
        joint, augment = lifted(*values[:3]), augmentation(*values[3:])
        points = torch.stack([x.expand(len(e)), e], 1)
        log_joint, log_q = joint.log_prob(points), augment(points)[1]
        at = torch.tensor([[x.item(), 0.7]])
        expected = torch.stack(
            [
                joint.log_prob(at)[0],
                augment(at)[1][0],
                log_joint.exp().sum() * width,
                (log_q.exp() * (log_joint - log_q)).sum() * width,
            ]
        )
        close(f"lift with {parameters} at {x.item()}", found, expected)
        assert found[3] <= math.log(found[2])


def composed(k: int, a: float, b: float, c: float, w: float) -> Compose:
    first = half_mask(2, 1)

    def squeeze(z: Tensor, context: Tensor | None) -> Tensor:
        return torch.cat([2 * torch.atanh(-c * torch.tanh(z) / 2), 0 * z], 1)

    layers = [
        planar_layer([a, 0.0], [2.5, 0.0], 0.0),
        AdditiveCoupling(first, lambda z, context: b * (z**2 - 2)),
        AffineCoupling(~first, squeeze),
        AdditiveCoupling(~first, lambda z, context: w * torch.sin(1.5 * z)),
    ]
    return Compose(layers[:k])


def test_composition_is_flowlibs(whole: Page) -> None:
    draw = torch.Generator().manual_seed(5)
    numbers = (torch.rand(100, 4, generator=draw) * 2 - 1) * torch.tensor([1.5, 0.8, 1.0, 1.0])
    parameters = [
        {"k": 1 + i % 4, **dict(zip("abcw", row, strict=True))} for i, row in enumerate(numbers.tolist())
    ]
    z = 1.5 * torch.randn(100, 2, generator=draw)
    layers = [composed(**values) for values in parameters]
    compare_layers(whole, "compose", parameters, layers, z)
    paths = whole.evaluate(
        "([all, z]) => all.map((p, i) => flowFigures.math.compose(p).path(z[i]))", [parameters, z.tolist()]
    )
    for path, stack, point in zip(paths, layers, z[:, None], strict=True):
        for u, log_det, layer in zip(path["points"], path["logDets"], stack, strict=False):
            close("u before the step", u, point[0])
            point, found = layer(point)
            close("log-det of the step", [log_det], found)
        close("u at the end", path["points"][-1], point[0])


def cooled(T: float, a: float) -> Compose:
    cooling = Scale(2)
    torch.nn.init.constant_(cooling.log_scale, math.log(T))
    return Compose([cooling, coupling_layer(a, 1.5, 1.2)])


def test_temperature_is_flowlibs(whole: Page) -> None:
    draw = torch.Generator().manual_seed(6)
    numbers = torch.rand(100, 2, generator=draw) * torch.tensor([1.4, 3.0]) + torch.tensor([0.1, -1.5])
    parameters = [dict(zip("Ta", row, strict=True)) for row in numbers.tolist()]
    z = torch.randn(100, 2, generator=draw)
    compare_layers(whole, "temperature", parameters, [cooled(**values) for values in parameters], z)


def test_latent_sound_is_numpys(whole: Page) -> None:
    """x = S z + noise, its best latents by least squares, and the share that they leave unexplained."""
    t = np.arange(4000) / 8000
    S = np.sin(2 * np.pi * 220 * np.arange(1, 6) * t[:, None])
    for seed, noise in enumerate([0.0, 0.05, 0.5]):
        z = np.random.default_rng(seed).uniform(-1, 1, 5)
        found = whole.evaluate(
            """setting => { const sound = flowFigures.math.latent(setting);
                return {...sound, x: [...sound.x], white: [...sound.white]}; }""",
            {"z": z.tolist(), "noise": noise},
        )
        white = np.array(found["white"])
        assert abs(white.mean()) < 0.05
        assert abs(white.std() - 1) < 0.05
        x = S @ z + noise * white
        best = np.linalg.lstsq(S, x, rcond=None)[0]
        residual = np.linalg.norm(x - S @ best) / np.linalg.norm(x)
        close("x", found["x"], torch.tensor(x))
        close("best latents", found["best"], torch.tensor(best))
        close("e(x)", [found["residual"]], torch.tensor([residual]))
        close("loudness", [found["loudness"]], torch.tensor([np.sqrt((x**2).mean())]))


@pytest.mark.parametrize("c", [0.0, 0.35, 0.5, 1.0])
@pytest.mark.parametrize("sigma", [0.1, 0.4, 1.5])
def test_dequantisation_is_numpys(whole: Page, sigma: float, c: float) -> None:
    ours = whole.evaluate(
        """setting => { const spec = flowFigures.math.dequantise(setting);
            return {...spec, p: [-0.3, 1.2, 6].map(spec.p)}; }""",
        {"sigma": sigma, "c": c},
    )
    shares = torch.tensor(ours["shares"])
    levels = torch.arange(len(shares), dtype=torch.float64)
    bumps = torch.distributions.Normal(levels + c, sigma)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    parts = torch.arange(100)[:, None] / 100  # of a cell, for log p turns sharply between two bumps
    u = (parts + torch.tensor((nodes + 1) / 200)).flatten()
    w = torch.tensor(weights / 200).repeat(100)

    def log_p(x: Tensor) -> Tensor:
        return torch.logsumexp(bumps.log_prob(x[..., None]) + shares.log(), -1)

    close("sum of the shares", [float(shares.sum())], torch.ones(1))
    close("p", ours["p"], log_p(torch.tensor([-0.3, 1.2, 6.0])).exp())
    close("mean log p(v)", [ours["raw"]], shares @ log_p(levels)[:, None])
    close("bound", [ours["bound"]], (shares @ (log_p(levels[:, None] + u) @ w))[None])
    edges = torch.arange(len(shares) + 1, dtype=torch.float64)[:, None]
    P = bumps.cdf(edges).diff(dim=0) @ shares
    close("mean log P(v)", [ours["exact"]], (shares @ P.log())[None])
    close("ceiling", [ours["ceiling"]], (shares @ shares.log())[None])
    assert ours["bound"] <= ours["exact"] <= ours["ceiling"]


@pytest.mark.parametrize("d", [2, 3, 8, 16])
def test_elimination_is_numpys(whole: Page, d: int) -> None:
    runs = whole.evaluate("d => Array.from({length: d + 1}, (_, k) => flowFigures.math.cost({d, k}))", d)
    start = np.array(runs[0]["matrix"])
    left, count = start.copy(), 0
    for k, run in enumerate(runs):
        close(f"{k} columns cleared", run["matrix"], torch.tensor(left))
        assert run["count"] == count
        if k < d:  # lecture 5's elimination, with its count
            pivot = k + int(np.abs(left[k:, k]).argmax())
            left[[k, pivot]] = left[[pivot, k]]
            factors = left[k + 1 :, k] / left[k, k]
            products = factors[:, None] * left[k, k + 1 :]
            left[k + 1 :, k + 1 :] -= products
            left[k + 1 :, k] = 0
            count += 1 + factors.size + products.size
    close("log|det|", [runs[-1]["logDet"]], torch.tensor([np.linalg.slogdet(start)[1]]))
    assert runs[-1]["count"] == runs[0]["dense"] == (d**3 - d) // 3 + d
    assert runs[0]["triangular"] == d


def test_film_follows_the_mean_of_the_straight_ways(whole: Page) -> None:
    """The velocity of lecture 1's first picture, its midpoint rule, and the way back."""
    angle = torch.linspace(0, math.pi, 60)
    moon = torch.stack([angle.cos(), angle.sin()], 1)
    middle = torch.tensor([0.5, 0.25])
    centres = 1.6 * torch.cat([moon - middle, middle - moon])

    def velocity(x: Tensor, t: float) -> Tensor:
        spread = (1 - t) ** 2 + (t * 0.12) ** 2
        end = (-(torch.cdist(x, t * centres) ** 2) / (2 * spread)).softmax(1) @ centres
        return end + (t * 0.12**2 - (1 - t)) / spread * (x - t * end)

    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(7))
    ours = torch.tensor(whole.evaluate("all => all.map(flowFigures.math.film.path)", x.tolist()))
    assert ours.shape == (20, 51, 2)
    for k in range(51):
        close(f"at {k} of 50", ours[:, k].tolist(), x)
        x = x + velocity(x + velocity(x, k / 50) / 100, (k + 0.5) / 50) / 50


@on("film")
def test_the_film_plays_to_its_end_and_back(page: Page) -> None:
    place = page.locator("[data-figure=film]")
    slider, button = place.locator("input"), place.locator("button").first
    slider.fill("0.9")
    for end in ("1", "0"):
        button.click()
        button.and_(page.get_by_text("Pause")).wait_for()
        page.wait_for_function("([input, end]) => input.value === end", arg=[slider.element_handle(), end])
        button.and_(page.get_by_text("Play")).wait_for()
    settle(page)
    assert readout(page, "film")["mean distance from the noise"] == "0.000"
    button.click()
    slider.press("ArrowRight")  # a hand on the slider stops the film
    button.and_(page.get_by_text("Play")).wait_for()


BLOBS = torch.tensor(
    [[[0.4, 0.6], [0.5, 0.5]], [[-2.0, 1.4], [-1.5, 1.5]], [[0.35, 0.5], [0.4, 0.4]]], dtype=torch.float64
)


def blobs_velocity(x: Tensor, t: float, context: Tensor | None = None) -> Tensor:
    """The mean of (x₁ − x)/(1 − t) over x₁ given x, its integral taken by the trapezoidal rule."""
    line = torch.linspace(-8, 8, 8001)
    shares, means, widths = BLOBS
    p_data = (
        (shares.log() + torch.distributions.Normal(means, widths).log_prob(line[:, None, None])).exp().sum(-1)
    )
    given = torch.distributions.Normal(t * line[:, None], 1 - t).log_prob(x[:, None, :])
    weights = given.exp() * p_data
    return ((line[:, None] - x[:, None, :]) / (1 - t) * weights).sum(1) / weights.sum(1)


def test_reflow_is_flowlibs(whole: Page) -> None:
    """Velocity by integrals, the walks by flowlib's solvers, the ends by the map that keeps the order."""
    draw = torch.Generator().manual_seed(4)
    z = torch.randn(20, 2, generator=draw)
    times = (0.95 * torch.rand(20, generator=draw)).tolist()
    ours = whole.evaluate(
        "([z, t]) => z.map((x, i) => flowFigures.math.reflow(1).velocity(x, t[i]))",
        [z.tolist(), times],
    )
    theirs = torch.cat([blobs_velocity(x[None], t) for x, t in zip(z, times, strict=True)])
    close("mean velocity", ours, theirs)
    for n in (1, 2, 4, 8):
        walks, ends, lines, bends = whole.evaluate(
            """([z, n]) => {
                const {euler, path, straight, bend} = flowFigures.math.reflow(n);
                const paths = z.map(path), ends = paths.map(places => places.at(-1));
                const walks = z.map(x => euler(x).at(-1)), lines = z.map((x, i) => straight(x, ends[i]));
                return [walks, ends, lines, paths.map(bend)];
            }""",
            [z.tolist(), n],
        )
        close(f"{n} steps of Euler", walks, FFJORD(blobs_velocity, solver=Euler(n))(z)[0])
    shares, means, widths = BLOBS
    F_X = (shares * torch.distributions.Normal(means, widths).cdf(torch.tensor(ends)[..., None])).sum(-1)
    close("the ends keep the order", F_X.tolist(), torch.distributions.Normal(0.0, 1.0).cdf(z))
    along = torch.linspace(0, 1, 9)[None, :, None]
    close("straight lines", lines, (1 - along) * z[:, None] + along * torch.tensor(ends)[:, None])
    middle = [(k + 0.5) / 200 for k in range(200)]  # another rule for the bend
    places, parts, step = z, [], RungeKutta(1)
    for t in middle:
        places = step(lambda t, x: blobs_velocity(x, min(t, 0.999)), places, max(t - 0.005, 0.0), t)
        parts.append((blobs_velocity(places, t) - (torch.tensor(ends) - z)).square().sum(1))
    torch.testing.assert_close(torch.tensor(bends), torch.stack(parts).mean(0), rtol=2e-2, atol=1e-3)


def results() -> dict[str, Any]:
    return json.loads((STATIC.parents[1] / "benchmarks/results/lecture_16.json").read_text("utf-8"))


def test_choose_shows_the_experiments_means(whole: Page) -> None:
    shown = whole.evaluate("flowFigures.chooseData")
    found = results()
    # where each number stands among the results, its factor, and half a unit of its last digit
    keys = {"bits": ("test", 1, 5e-5), "sampling": ("sampling", 1e3, 5e-4)}
    keys |= {"memory": ("memory_mb", 1, 0.05), "looks": ("looks", 1, 5e-3)}
    keys["seconds"] = ("seconds", 1, 5e-3)
    assert [row["model"] for row in shown[::2]] == list(found["models"])
    for place, row in enumerate(shown):
        assert row["budget"] == found["budgets"][place % 2]
        about = found["models"][row["model"]]
        assert {key: row[key] for key in ("family", "kind", "labels")} == {
            key: about[key] for key in ("family", "kind", "labels")
        }
        assert row["parameters"] == about["parameters"] / 1e3
        runs = [r for r in found["runs"] if (r["model"], r["budget"]) == (row["model"], place % 2)]
        for key, (name, factor, half) in keys.items():
            average = factor * sum(run[name] for run in runs) / len(runs)
            assert row[key] == pytest.approx(average, rel=1e-6, abs=1.01 * half)


def test_choose_sorts_filters_and_finds_the_front(whole: Page) -> None:
    draw = random.Random(5)
    rows = [
        {"name": str(i), "kind": draw.choice("ab"), "x": draw.randint(0, 9), "y": draw.randint(0, 9)}
        for i in range(60)
    ]
    rising, falling, some, best = whole.evaluate(
        """rows => {
            const { sorted, filtered, front } = flowFigures.math.choose;
            return [sorted(rows, "x"), sorted(rows, "x", true), filtered(rows, {kind: "a", x: "all"}),
                front(rows, ["x", "y"])];
        }""",
        rows,
    )
    assert rising == sorted(rows, key=lambda row: row["x"])
    assert falling == sorted(rows, key=lambda row: -row["x"])
    assert some == [row for row in rows if row["kind"] == "a"]
    worse = {(a["x"], a["y"]) for a in rows}
    on_front = [
        row
        for row in rows
        if not any(x <= row["x"] and y <= row["y"] and (x, y) != (row["x"], row["y"]) for x, y in worse)
    ]
    assert best == on_front
    assert 1 < len(best) < len(rows)


# --- what is drawn and said ------------------------------------------------------------


def readout(page: Page, figure: str) -> dict[str, str]:
    """The numbers that the figure shows, by their names; a typographic minus becomes a plain one."""
    rows = page.locator(f"[data-figure={figure}] .flow-readout > div").all_inner_texts()
    return {name: value.replace("−", "-") for name, value in (row.split("\n") for row in rows)}


def pictures(page: Page, figure: str) -> dict[str, str]:
    """The pixels on the side of x: of the density and of the lines over it."""
    return page.evaluate(
        """figure => Object.fromEntries([...document.querySelectorAll(`[data-figure=${figure}] canvas`)]
            .map(canvas => [canvas.className, canvas.toDataURL()]))""",
        figure,
    )


def set_slider(page: Page, figure: str, index: int, value: float) -> None:
    page.locator(f"[data-figure={figure}] input").nth(index).fill(str(value))


@pytest.mark.parametrize("figure", PLANES)
def test_picture_is_flowlibs_density(page: Page, figure: str) -> None:
    values = {
        "planar": [-2.0, 0.5, 2.0, 1.0, -0.5],
        "coupling": [-1.2, 2.5, 1.5],
        "field": [-0.8, 0.7, 1.1, -1.3],
        "compose": [3, 0.9, -0.4, 0.7, 0.5],
        "temperature": [0.8, -1.1],
    }[figure]
    for index, value in enumerate(values):
        set_slider(page, figure, index, value)
    settle(page)
    side, alpha = page.evaluate(
        """figure => {
            const canvas = document.querySelectorAll(`[data-figure=${figure}] .flow-density`)[1];
            const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return [canvas.width, [...data].filter((_, i) => i % 4 === 3)];
        }""",
        figure,
    )
    layer: Bijection = {
        "planar": lambda: planar_layer(values[:2], values[2:4], values[4]),
        "coupling": lambda: coupling_layer(*values),
        "field": lambda: field_layer(*values),
        "compose": lambda: composed(int(values[0]), *values[1:]),
        "temperature": lambda: cooled(*values),
    }[figure]()
    centres = -4.5 + 9 * (torch.arange(side) + 0.5) / side
    x2, x1 = torch.meshgrid(centres.flip(0), centres, indexing="ij")
    density = Flow(layer, StandardNormal(2)).log_prob(torch.stack([x1, x2], -1).reshape(-1, 2)).exp()
    shade = 255 * (1 - torch.exp(-density / 0.12))
    # canvases round to whole numbers
    assert (torch.tensor(alpha, dtype=shade.dtype) - shade).abs().max() <= 0.5 + 1e-6

    z = torch.tensor([[float(part) for part in readout(page, figure)["z"].strip("()").split(", ")]])
    x, log_det = layer(z)
    shown = readout(page, figure)
    assert float(shown["log |det|"]) == pytest.approx(log_det.item(), abs=6e-4)
    assert float(shown["pX(x)"]) == pytest.approx(
        Flow(layer, StandardNormal(2)).log_prob(x).exp().item(), abs=6e-5
    )
    assert float(shown["area ratio"]) == pytest.approx(
        log_det.exp().item(), rel=0.25
    )  # the cell is not small


def push(page: Page, slider: Locator, how: str) -> None:
    """Move a slider to the left, by four keys or by a tap."""
    slider.scroll_into_view_if_needed()
    if how == "keyboard":
        slider.focus()
        for _ in range(4):
            page.keyboard.press("ArrowLeft")
    else:
        box = slider.bounding_box()
        page.touchscreen.tap(box["x"] + 0.3 * box["width"], box["y"] + 8)
    settle(page)


@pytest.mark.parametrize("how", ["keyboard", "touch"])
@pytest.mark.parametrize("figure", PROBED)
def test_every_slider_moves_grid_density_and_log_det(page: Page, figure: str, how: str) -> None:
    log_det = {"change": "log |f ′(z)|", "mixture": "log g ′(x)"}.get(figure, "log |det|")
    for slider in page.locator(f"[data-figure={figure}] input").all():
        page.locator(f"[data-figure={figure}] .flow-reset").click()
        settle(page)
        number, seen = readout(page, figure)[log_det], pictures(page, figure)
        if slider.get_attribute("aria-label").startswith(STILL.get(figure, "none")):
            number = None  # a shift moves no volume and a search no curve: their log-det must stay
        push(page, slider, how)
        now = pictures(page, figure)
        assert all(now[name] != seen[name] for name in seen), (
            f"{slider.get_attribute('aria-label')} moves nothing"
        )
        assert readout(page, figure)[log_det] != number


@on("coupling")
def test_shift_of_the_coupling_keeps_the_log_det(page: Page) -> None:
    before = readout(page, "coupling")["log |det|"]
    set_slider(page, "coupling", 2, -2)
    settle(page)
    assert readout(page, "coupling")["log |det|"] == before


@pytest.mark.parametrize("figure", PROBED)
def test_probe_moves_by_arrow_keys(page: Page, figure: str) -> None:
    probe = page.locator(f"[data-figure={figure}] .flow-probe")
    before, seen = readout(page, figure), pictures(page, figure)
    probe.focus()
    for key in ("ArrowRight", "ArrowUp", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    settle(page)
    after = readout(page, figure)
    assert {name for name in before if before[name] != after[name]} >= {"z", "x"}
    assert pictures(page, figure)["flow-lines"] != seen["flow-lines"]
    first = after[PROBED[figure]].strip("()").split(",")[0]
    assert float(probe.get_attribute("aria-valuenow")) == pytest.approx(float(first), abs=6e-3)


def drag_by_finger(page: Page, figure: str, dx: float, dy: float) -> None:
    """Touch the probe and pull it eight times by so many pixels."""
    box = page.locator(f"[data-figure={figure}] .flow-probe").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    finger = page.context.new_cdp_session(page)
    finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 9):
        point = {"x": x + dx * step, "y": y + dy * step}
        finger.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    settle(page)


@pytest.mark.parametrize("figure", PROBED)
def test_probe_is_dragged_by_a_finger(page: Page, figure: str) -> None:
    probe = page.locator(f"[data-figure={figure}] .flow-probe")
    probe.scroll_into_view_if_needed()
    box = probe.bounding_box()
    before, scrolled = readout(page, figure), page.evaluate("scrollY")
    drag_by_finger(page, figure, -4, 3 if figure in PLANES else 0)
    after, moved = readout(page, figure), probe.bounding_box()
    assert after["z"] != before["z"]
    assert after["x"] != before["x"]
    assert moved["x"] == pytest.approx(box["x"] - 32, abs=2)  # the probe stays under the finger
    assert page.evaluate("scrollY") == scrolled  # and the page does not move instead


@on("made")
def test_the_chosen_output_moves_by_arrow_keys_and_by_a_finger(page: Page) -> None:
    probe = page.locator("[data-figure=made] .flow-probe")
    probe.focus()
    assert (readout(page, "made")["output"], readout(page, "made")["sees inputs"]) == ("3", "1, 2")
    seen = pictures(page, "made")
    page.keyboard.press("ArrowRight")
    settle(page)
    assert (readout(page, "made")["output"], readout(page, "made")["sees inputs"]) == ("4", "1, 2, 3")
    now = pictures(page, "made")
    assert all(now[name] != seen[name] for name in seen)
    assert probe.get_attribute("aria-valuenow") == "4"
    probe.scroll_into_view_if_needed()
    scrolled = page.evaluate("scrollY")
    drag_by_finger(page, "made", -40, 0)
    assert (readout(page, "made")["output"], readout(page, "made")["sees inputs"]) == ("1", "none")
    assert page.evaluate("scrollY") == scrolled


@on("made")
@pytest.mark.parametrize("how", ["keyboard", "touch"])
def test_every_slider_changes_the_network(page: Page, how: str) -> None:
    for slider in page.locator("[data-figure=made] input").all():
        number, seen = readout(page, "made")["weights kept"], pictures(page, "made")
        slider.scroll_into_view_if_needed()
        if how == "keyboard":
            slider.focus()
            page.keyboard.press("ArrowLeft")
        else:
            box = slider.bounding_box()
            page.touchscreen.tap(box["x"] + 0.1 * box["width"], box["y"] + 8)
        settle(page)
        assert pictures(page, "made")["flow-lines"] != seen["flow-lines"]
        assert readout(page, "made")["weights kept"] != number


@on("made")
def test_narrow_layers_and_orders_say_who_is_lost(page: Page) -> None:
    assert readout(page, "made")["pairs lost"] == "0"
    set_slider(page, "made", 1, 1)  # one unit, of degree 1
    settle(page)
    assert readout(page, "made")["pairs lost"] == "3"
    page.locator("[data-figure=made] select").select_option("backward")
    settle(page)
    assert readout(page, "made")["sees inputs"] == "4"


@on("change")
def test_base_and_map_are_chosen(page: Page) -> None:
    base, mapping = page.locator("[data-figure=change] select").all()
    for select, option in ((mapping, "exp"), (base, "normal"), (mapping, "bend"), (mapping, "reverse")):
        seen = pictures(page, "change")
        select.select_option(option)
        settle(page)
        assert pictures(page, "change") != seen
    shown = readout(page, "change")  # x = -z of a standard normal: nothing but a mirror
    assert shown["pZ(z)"] == shown["pX(x)"]
    assert float(shown["x"]) == -float(shown["z"])


@on("change")
def test_the_slides_example(page: Page) -> None:
    """X = 4 Z with Z uniform on [0, 2] has density 1/8, not 1/2: what the figure opens with."""
    shown = readout(page, "change")
    assert (shown["pZ(z)"], shown["|f ′(z)|"], shown["pX(x)"]) == ("0.5000", "4.000", "0.1250")
    assert float(shown["log |f ′(z)|"]) == pytest.approx(math.log(4), abs=6e-4)


@on("lift")
@pytest.mark.parametrize("how", ["keyboard", "touch"])
def test_probe_of_the_lift_moves_along_x(page: Page, how: str) -> None:
    probe = page.locator("[data-figure=lift] .flow-probe")
    before, seen = readout(page, "lift"), pictures(page, "lift")
    if how == "keyboard":
        probe.focus()
        for key in ("ArrowRight", "ArrowUp", "Shift+ArrowLeft"):
            page.keyboard.press(key)
    else:
        probe.scroll_into_view_if_needed()
        box = probe.bounding_box()
        page.touchscreen.tap(box["x"] - 30, box["y"] + 22)
    settle(page)
    after = readout(page, "lift")
    assert {name for name in before if before[name] != after[name]} == set(before)
    assert pictures(page, "lift") != seen
    assert float(probe.get_attribute("aria-valuenow")) == pytest.approx(float(after["x"]), abs=6e-3)
    exact, bound, gap = (float(after[name]) for name in ("log p(x)", "bound", "gap"))
    assert gap == pytest.approx(exact - bound, abs=2e-3)


@on("lift")
@pytest.mark.parametrize("how", ["keyboard", "touch"])
def test_every_slider_of_the_lift_moves_picture_and_gap(page: Page, how: str) -> None:
    for slider in page.locator("[data-figure=lift] input").all():
        before, seen = readout(page, "lift"), pictures(page, "lift")
        push(page, slider, how)
        after = readout(page, "lift")
        assert pictures(page, "lift") != seen
        assert after["gap"] != before["gap"]
        of_q = slider.get_attribute("aria-label").endswith("of q")
        assert (after["log p(x)"] == before["log p(x)"]) == of_q  # q is no part of the model


@pytest.mark.parametrize("how", ["keyboard", "touch"])
@pytest.mark.parametrize("figure", ALONE)
def test_every_slider_moves_picture_and_numbers(page: Page, figure: str, how: str) -> None:
    place = page.locator(f"[data-figure={figure}]")
    before, seen = readout(page, figure), pictures(page, figure)
    for slider in place.locator("input").all():
        if how == "keyboard" and slider.evaluate("slider => slider.value === slider.min"):
            slider.press("ArrowRight")
            settle(page)
        else:
            push(page, slider, how)
        assert pictures(page, figure) != seen, f"{slider.get_attribute('aria-label')} moves nothing"
        assert readout(page, figure) != before
        place.get_by_role("button", name="Reset").click()
        settle(page)
        assert (readout(page, figure), pictures(page, figure)) == (before, seen)
    place.locator("input").first.press("ArrowRight")
    status = place.locator(".flow-summary")
    page.wait_for_function("text => text.textContent", arg=status.element_handle())


def test_the_sound_is_asked_for_by_the_button(browser: Browser, address: Callable[..., str]) -> None:
    """No sound before the button is pressed, and then the samples of x, faded at the ends."""
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(
        """window.started = []; window.contexts = 0;
        window.AudioContext = class extends AudioContext { constructor() { super(); window.contexts += 1; } };
        const start = AudioBufferSourceNode.prototype.start;
        AudioBufferSourceNode.prototype.start = function () {
            window.started.push([...this.buffer.getChannelData(0)]); start.call(this); };"""
    )
    page.goto(address("latent"))
    page.evaluate("flowFigures.ready")
    assert page.evaluate("window.contexts") == 0
    button = page.locator("[data-figure=latent]").get_by_role("button", name="Play half a second")
    for _ in range(2):
        button.click()
    assert page.evaluate("window.contexts") == 1
    first, second = (torch.tensor(sound) for sound in page.evaluate("window.started"))
    x = torch.tensor(page.evaluate("[...flowFigures.math.latent({z: [0.8, 0.5, 0, 0.3, 0], noise: 0}).x]"))
    assert torch.equal(first, second)
    middle = slice(200, 3800)
    torch.testing.assert_close(
        first[middle], 0.25 * x[middle] / max(1.0, float(x.abs().max())), atol=1e-6, rtol=1e-6
    )
    assert float(first[[0, -1]].abs().max()) < 0.01
    context.close()


@on("haar")
@pytest.mark.parametrize("how", ["keyboard", "touch"])
def test_details_are_kept_and_scaled(page: Page, how: str) -> None:
    """Both sliders change both pictures, and all details kept at t = 1 give the digit back."""
    kept, factor = page.locator("[data-figure=haar] input").all()
    assert readout(page, "haar")["kept"] == "16 of 64"
    for slider, share, key in ((kept, 0.99, "End"), (factor, 0.3, "ArrowLeft")):
        seen, numbers = pictures(page, "haar"), readout(page, "haar")
        slider.scroll_into_view_if_needed()
        if how == "keyboard":
            slider.press(key)
        else:
            box = slider.bounding_box()
            page.touchscreen.tap(box["x"] + share * box["width"], box["y"] + 8)
        settle(page)
        now = pictures(page, "haar")
        assert all(now[name] != seen[name] for name in seen)
        assert readout(page, "haar")["log |det|"] != numbers["log |det|"]
        if slider is kept:
            whole = {"kept": "64 of 64", "energy": "100.0 %", "log |det|": "0.000"}
            assert readout(page, "haar") == {**whole, "largest error": "0.00"}
    status = page.locator("[data-figure=haar] .flow-summary[aria-live=polite]")
    page.wait_for_function("text => text.textContent.includes('64 of 64')", arg=status.element_handle())
    assert readout(page, "haar")["log |det|"] in status.inner_text().replace("−", "-")


@on("haar")
def test_another_digit_and_back(page: Page) -> None:
    before, seen = readout(page, "haar"), pictures(page, "haar")
    page.locator("[data-figure=haar] select").select_option("five")
    set_slider(page, "haar", 0, 1)
    settle(page)
    assert readout(page, "haar") != before
    page.locator("[data-figure=haar] .flow-reset").click()
    settle(page)
    assert readout(page, "haar") == before
    assert pictures(page, "haar") == seen


@on("reflow")
@pytest.mark.parametrize("how", ["keyboard", "touch"])
def test_time_and_steps_move_the_walks(page: Page, how: str) -> None:
    time, steps = page.locator("[data-figure=reflow] input"), page.locator("[data-figure=reflow] select")
    before, seen = readout(page, "reflow"), pictures(page, "reflow")
    assert float(before["error before"]) > 0.1
    assert before["error after"] == "0.000"
    push(page, time, how)
    now = pictures(page, "reflow")
    assert all(now[name] != seen[name] for name in seen)
    assert readout(page, "reflow")["time t"] != before["time t"]
    errors = []
    for n in ("1", "2", "4", "8", "64"):
        steps.select_option(n)
        settle(page)
        assert readout(page, "reflow")["evaluations of v"] == n
        errors.append(float(readout(page, "reflow")["error before"]))
    assert errors == sorted(errors, reverse=True)
    status = page.locator("[data-figure=reflow] .flow-summary[aria-live=polite]")
    page.wait_for_function("text => text.textContent.startsWith('64 steps')", arg=status.element_handle())
    page.locator("[data-figure=reflow] .flow-reset").click()
    settle(page)
    assert readout(page, "reflow") == before
    assert pictures(page, "reflow") == seen


def column(page: Page, number: int) -> list[float]:
    """The numbers of one column of the table, from the top; column 1 is that of the bits."""
    cells = page.locator(f"[data-figure=choose] tbody tr > :nth-child({number + 1})").all_inner_texts()
    return [float(cell.replace("−", "-")) for cell in cells]


@on("choose")
@pytest.mark.parametrize("how", ["keyboard", "touch"])
def test_a_heading_sorts_the_table(page: Page, how: str) -> None:
    heads = page.locator("[data-figure=choose] thead button")
    assert column(page, 1) == sorted(column(page, 1))
    for _ in range(2):
        heads.nth(2).press("Enter") if how == "keyboard" else heads.nth(2).tap()
        settle(page)
        times = column(page, 2)
        assert times == sorted(times, reverse=_ == 1)
    assert page.locator("[data-figure=choose] thead th").nth(2).get_attribute("aria-sort") == "descending"
    status = page.locator("[data-figure=choose] .flow-summary[aria-live=polite]")
    page.wait_for_function("text => text.textContent.includes('largest first')", arg=status.element_handle())


@on("choose")
def test_the_front_is_that_of_what_is_left(page: Page) -> None:
    found = results()
    budgets = [str(budget).removesuffix(".0") for budget in found["budgets"]]
    selects = page.locator("[data-figure=choose] select")
    for budget, kind in ((0, "all"), (1, "bound"), (1, "exact")):
        seen = pictures(page, "choose")
        selects.nth(0).select_option(budgets[budget])
        selects.nth(1).select_option(kind)
        settle(page)
        assert pictures(page, "choose") != seen
        names = [
            name
            for name, row in found["models"].items()
            if not row["labels"] and kind in ("all", row["kind"])
        ]
        costs = []
        for name in names:
            runs = [r for r in found["runs"] if (r["model"], r["budget"]) == (name, budget)]
            costs.append([sum(r[key] for r in runs) / len(runs) for key in ("sampling", "test")])
        a, b = torch.tensor(costs)[:, None], torch.tensor(costs)
        beaten = ((a <= b).all(2) & (a < b).any(2)).any(0).tolist()
        bold = page.locator("[data-figure=choose] .flow-front th").all_inner_texts()
        best = {name for name, out in zip(names, beaten, strict=True) if not out}
        assert {text[2:] for text in bold} == best
        shown = readout(page, "choose")
        assert shown["on the front"] == str(len(best))
        assert shown["shown"] == f"{len(names)} of {2 * len(found['models'])}"
    page.locator("[data-figure=choose] .flow-reset").click()
    settle(page)
    assert readout(page, "choose")["shown"] != shown["shown"]


@pytest.mark.parametrize("figure", PROBED)
def test_reset(page: Page, figure: str) -> None:
    before, seen = readout(page, figure), pictures(page, figure)
    set_slider(page, figure, 0, 0.9)
    page.locator(f"[data-figure={figure}] .flow-probe").press("ArrowLeft")
    settle(page)
    assert readout(page, figure) != before
    page.locator(f"[data-figure={figure}] .flow-reset").click()
    settle(page)
    assert readout(page, figure) == before
    assert pictures(page, figure) == seen


# --- every reader ----------------------------------------------------------------------


@pytest.mark.parametrize("figure", FIGURES)
def test_fits_a_phone_and_a_finger(page: Page, figure: str) -> None:
    place = page.locator(f"[data-figure={figure}]")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    inner = place.evaluate(
        """place => [...place.querySelectorAll("*")].filter(part => !part.closest(".flow-summary"))
            .map(part => part.getBoundingClientRect()).filter(box => box.width)
            .map(box => [box.left, box.right])"""
    )
    frame = place.bounding_box()
    assert min(left for left, _ in inner) >= frame["x"]
    assert max(right for _, right in inner) <= frame["x"] + frame["width"]
    for target in place.locator("input, select, button, .flow-probe").all():
        box = target.bounding_box()
        assert min(box["width"], box["height"]) >= 44


@pytest.mark.parametrize("figure", PROBED)
def test_named_and_announced(page: Page, figure: str) -> None:
    place = page.locator(f"[data-figure={figure}]")
    assert place.get_attribute("role") == "group"
    assert all(one.get_attribute("aria-label") for one in place.locator("input, canvas, .flow-probe").all())
    status = place.locator(".flow-summary[aria-live=polite]")
    assert status.inner_text() == ""  # a page that opens does not talk
    place.locator("input").first.press("ArrowLeft")
    start, name = ("Output", "weights kept") if figure == "made" else ("z = ", "x")
    page.wait_for_function(f"text => text.textContent.startsWith('{start}')", arg=status.element_handle())
    assert readout(page, figure)[name] in status.inner_text().replace("−", "-")


@pytest.mark.parametrize("figure", FIGURES)
def test_follows_the_theme(page: Page, figure: str) -> None:
    light = pictures(page, figure)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    settle(page)
    dark = pictures(page, figure)
    assert all(light[name] != dark[name] for name in light)


def test_nothing_moves_by_itself(whole: Page) -> None:
    moving = whole.evaluate(
        """[...document.querySelectorAll(".flow-figure *")].map(part => getComputedStyle(part))
            .filter(style => style.transitionDuration !== "0s" || style.animationName !== "none").length"""
    )
    assert moving == 0


def test_print_leaves_room_for_the_still_figure(whole: Page) -> None:
    whole.emulate_media(media="print")
    assert not any(place.is_visible() for place in whole.locator(".flow-figure").all())
    whole.emulate_media(media="screen")


def test_unknown_figure_keeps_its_text(whole: Page) -> None:
    assert whole.locator("[data-figure=none]").inner_text() == "See the book."


def test_book_places_every_figure(visits: dict[str, Visit]) -> None:
    found = [(path, figure) for path, visit in visits.items() for figure in visit.figures]
    for path, figure in found:
        assert figure["filled"], f"{path}: {figure['name']} is not filled"
        assert 0 <= figure["left"] < figure["right"] <= PHONE["width"], f"{path}: {figure['name']} is cut"
    assert {figure["name"] for _, figure in found} == {*FIGURES, *ELSEWHERE}, (
        "place the others in a lecture: <div class='flow-figure' data-figure='…'>"
    )
