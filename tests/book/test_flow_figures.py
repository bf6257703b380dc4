"""The interactive figures: their arithmetic is flowlib's, and keyboard and touch move them.

They are opened from a file, as a reader does who has no server.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Locator, Page
from torch import Tensor
from torch.distributions import AffineTransform, Distribution, ExpTransform, TransformedDistribution

from flowlib import (
    FFJORD,
    MADE,
    AffineCoupling,
    Augment,
    Bijection,
    Flow,
    Haar,
    Planar,
    RungeKutta,
    StandardNormal,
    UniformBox,
    check,
    mixture_logit,
    solve_mixture_logit,
)
from flowlib.data import digits
from flowlib.layers.coupling import half_mask

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("book")]

STATIC = Path(__file__).parents[2] / "book" / "_static"
# what the probe moves along, in the figures that have one
PROBED = {"planar": "z", "coupling": "z", "field": "z", "change": "z", "mixture": "x"}
FIGURES = [*PROBED, "choose", "haar", "lift", "made"]
# sliders that must leave the log-det alone, by their labels
STILL = {"coupling": "c,", "mixture": "n,"}
PLANES = ["planar", "coupling", "field"]
PHONE = {"width": 390, "height": 844}
PAGE = """<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>Figures</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="{static}/flow-figures.css"><script src="{static}/flow-figures.js"></script>
</head><body>{figures}</body></html>"""


@pytest.fixture(autouse=True)
def _float64(same_start: None) -> None:
    torch.set_default_dtype(torch.float64)  # JavaScript's only number


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small page of its own with all figures and one that does not exist."""
    figures = "".join(
        f'<div class="flow-figure" data-figure="{name}">See the book.</div>' for name in [*FIGURES, "none"]
    )
    file = tmp_path_factory.mktemp("figures") / "page.html"
    file.write_text(PAGE.format(static=STATIC.as_uri(), figures=figures), "utf-8")
    return file.as_uri()


@contextmanager
def opened(browser: Browser, address: str) -> Iterator[Page]:
    """The page on a phone with a touch screen, all figures drawn; an error in its console fails the test."""
    context = browser.new_context(viewport=PHONE, has_touch=True)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type in ("error", "warning") else None)
    page.goto(address)
    page.evaluate("flowFigures.ready")
    settle(page)
    yield page
    context.close()
    assert errors == ['No interactive figure is called "none".']


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A fresh page, to touch."""
    with opened(browser, address) as page:
        yield page


@pytest.fixture(scope="module")
def arithmetic(browser: Browser, address: str) -> Iterator[Page]:
    """One page for all tests that only calculate."""
    with opened(browser, address) as page:
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


def compare_layers(page: Page, name: str, parameters: list[dict], layers: list[Bijection], z: Tensor) -> None:
    """Both directions and the pushed density of many layers, one point through each."""
    runs = page.evaluate(
        """([name, parameters, points]) => parameters.map((p, i) => {
            const layer = flowFigures.math[name](p);
            const [x, logDet] = layer.forward(points[i]);
            return {x, logDet, inverse: layer.inverse(points[i]), density: layer.density(points[i])};
        })""",
        [name, parameters, z.tolist()],
    )
    for run, layer, values, point in zip(runs, layers, parameters, z[:, None], strict=True):
        x, log_det = layer(point)
        back, inverse_log_det = layer.inverse(point)
        close(f"forward of {values}", run["x"], x[0])
        close(f"log-det of {values}", run["logDet"], log_det[0])
        close(f"inverse of {values}", run["inverse"][0], back[0])
        close(f"inverse log-det of {values}", run["inverse"][1], inverse_log_det[0])
        density = Flow(layer, StandardNormal(2)).log_prob(point).exp()[0]
        close(f"density of {values}", run["density"], density)


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


def field_layer(t: float, a: float, omega: float, c: float, steps: int = 16) -> FFJORD:
    def velocity(x: Tensor, time: float, context: Tensor | None) -> Tensor:  # t units of time in one
        x1, x2 = x.T
        return t * torch.stack([a * x1 - omega * x2, omega * x1 + c * torch.tanh(x2)], 1)

    return FFJORD(velocity, solver=RungeKutta(steps))


def test_planar_is_flowlibs(arithmetic: Page) -> None:
    draw = torch.Generator().manual_seed(1)
    numbers = (3 * torch.randn(200, 5, generator=draw)).tolist()
    # u·w far below -1, where it is clipped, and far above
    numbers += [[-1000.0, 0.5, 1.0, 0.0, 0.3], [1000.0, -2.0, 1.0, 0.0, -0.7]]
    numbers += [[-500.0, 500.0, 1.0, -1.0, 0.0], [-31.6, 0.0, 31.6, 0.0, 0.1]]
    numbers += [[0.7, -0.4, 0.0, 0.0, 1.2], [2.0, 1.0, 1e-9, -1e-9, 0.5]]  # w = 0: a translation
    parameters = [{"u": n[:2], "w": n[2:4], "b": n[4]} for n in numbers]
    layers = [planar_layer(**values) for values in parameters]
    compare_layers(arithmetic, "planar", parameters, layers, 2 * torch.randn(len(numbers), 2, generator=draw))

    effective = arithmetic.evaluate(
        "all => all.map(p => { const {uHat, m} = flowFigures.math.planar(p); return [...uHat, m]; })",
        parameters,
    )
    expected = torch.stack([torch.cat([layer.u_hat, layer.effective()[3][None]]) for layer in layers])
    close("û and û·w", effective, expected)
    assert min(row[2] for row in effective) > -1


def test_coupling_is_flowlibs(arithmetic: Page) -> None:
    draw = torch.Generator().manual_seed(2)
    numbers = (torch.rand(200, 3, generator=draw) * 2 - 1) * torch.tensor([1.5, 4.0, 2.0])
    parameters = [dict(zip("akc", row, strict=True)) for row in numbers.tolist()]
    layers = [coupling_layer(**values) for values in parameters]
    compare_layers(arithmetic, "coupling", parameters, layers, 2 * torch.randn(200, 2, generator=draw))


def test_field_is_flowlibs(arithmetic: Page) -> None:
    draw = torch.Generator().manual_seed(4)
    # what the sliders reach, and its corners
    most = torch.tensor([1.0, 1.0, 3.0, 2.0])
    numbers = torch.cat(
        [torch.rand(100, 4, generator=draw) * 2 - 1, torch.tensor([[1.0, 1, 1, 1], [-1, -1, 1, 1]])]
    )
    names = ("t", "a", "omega", "c")
    parameters = [dict(zip(names, row, strict=True)) for row in (numbers * most).tolist()]
    z = 1.5 * torch.randn(len(parameters), 2, generator=draw)
    layers = [field_layer(**values) for values in parameters]
    compare_layers(arithmetic, "field", parameters, layers, z)
    # without the bend: the matrix exponential
    exact = arithmetic.evaluate(
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
    paths = arithmetic.evaluate(
        "([p, z]) => { const f = flowFigures.math.field(p); return [f.path(z), f.velocity(z), f.trace(z)]; }",
        [parameters[0], z[0].tolist()],
    )
    close("path ends at x", paths[0][-1], layers[0](z[:1])[0][0])
    close("path begins at z", paths[0][0], z[0])
    jacobian = torch.func.jacrev(
        lambda p: field_layer(1.0, *list(parameters[0].values())[1:]).velocity(p[None], 0, None)[0]
    )(z[0])
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
def test_change_of_variables_is_torchs(arithmetic: Page, base: str, mapping: str) -> None:
    draw = torch.Generator().manual_seed(3)
    low, high = (-0.9, 4.0) if mapping == "bend" else (0.4, 3.0)
    for a in (low + (high - low) * torch.rand(20, generator=draw)).tolist():
        x = 4 * torch.randn(30, generator=draw)
        x = x.abs() if mapping == "exp" else x
        ours = arithmetic.evaluate(
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


def test_made_is_flowlibs(arithmetic: Page) -> None:
    draw = torch.Generator().manual_seed(4)
    sizes = [(2, [1]), (3, [8, 3]), (4, [6, 6]), (6, [8, 8, 8]), (6, [2]), (6, [3, 1, 5])]
    networks = [
        {"order": torch.randperm(d, generator=draw).tolist(), "hidden": hidden} for d, hidden in sizes
    ]
    runs = arithmetic.evaluate("all => all.map(network => flowFigures.math.made(network))", networks)
    for network, run in zip(networks, runs, strict=True):
        made = MADE(len(network["order"]), 1, network["hidden"], order=network["order"])
        paths = torch.eye(made.d)
        for ours, layer in zip(run["masks"], made.layers, strict=True):
            assert torch.equal(torch.tensor(ours).to(layer.mask), layer.mask)
            paths = layer.mask @ paths
        assert run["sees"] == paths.tolist()
        assert run["places"] == made.place.tolist()


def test_exp_reaches_no_negative_number(arithmetic: Page) -> None:
    spec = "flowFigures.math.change({base: 'normal', map: 'exp', a: 1})"
    assert arithmetic.evaluate(f"[-1, 0].map({spec}.density)") == [0, 0]


def test_mixture_is_flowlibs(arithmetic: Page) -> None:
    draw = torch.Generator().manual_seed(4)
    numbers = torch.rand(200, 5, generator=draw) * torch.tensor([0.9, 8, 8, 1.8, 1.8])
    numbers += torch.tensor([0.05, -4, -4, 0.2, 0.2])
    x = 4 * torch.randn(200, generator=draw)
    x[:4] = torch.tensor([-300.0, -40.0, 40.0, 300.0])  # where F, as a number, is 0 or 1
    pi = torch.stack([numbers[:, 0], 1 - numbers[:, 0]])
    mean, scale = numbers[:, 1:3].T, numbers[:, 3:].T
    runs = arithmetic.evaluate(
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


def test_more_halvings_close_in_on_the_probe(page: Page) -> None:
    before = readout(page, "mixture")
    set_slider(page, "mixture", 5, 12)
    settle(page)
    after = readout(page, "mixture")
    assert after["z"] == before["z"]
    assert float(after["at most"]) < float(before["at most"]) / 50  # seven more halvings
    assert float(after["its error"]) <= float(after["at most"]) + 1e-4


def test_root_is_refused_where_it_is_not_unique(arithmetic: Page) -> None:
    said = arithmetic.evaluate(
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
def test_haar_is_flowlibs(arithmetic: Page, side: int) -> None:
    draw = torch.Generator().manual_seed(4)
    scales = side.bit_length() - 1
    for kept in range(scales + 1):
        image = 5 * torch.randn(1, 1, side, side, generator=draw)
        factor = float(0.1 + 2 * torch.rand((), generator=draw))
        ours = arithmetic.evaluate(
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


def test_haar_shows_training_digits(arithmetic: Page) -> None:
    shown = torch.tensor(arithmetic.evaluate("flowFigures.math.haarDigits()"))
    images, labels = digits("train")
    found = [(images[:, 0] == digit).all((1, 2)).nonzero().flatten() for digit in shown]
    assert [labels[rows].tolist() for rows in found] == [[0], [2], [3], [5]]


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


def test_lift_is_flowlibs(arithmetic: Page) -> None:
    """The joint, the marginal as its integral, and the bound as VFlow's bracket averaged over q."""
    draw = torch.Generator().manual_seed(4)
    low, high = torch.tensor([[0.0, 0.2, 0.25, -2.0, 0.2], [2.5, 4.0, 1.0, 2.0, 1.5]])
    e, width = torch.linspace(-13, 13, 4001), 26 / 4000
    for values in (low + (high - low) * torch.rand(30, 5, generator=draw)).tolist():
        parameters = dict(zip(["a", "k", "sigma", "m", "r"], values, strict=True))
        x = 2 * torch.randn(1, generator=draw)
        found = arithmetic.evaluate(
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


def results() -> dict[str, Any]:
    return json.loads((STATIC.parents[1] / "benchmarks/results/lecture_16.json").read_text("utf-8"))


def test_choose_shows_the_experiments_means(arithmetic: Page) -> None:
    shown = arithmetic.evaluate("flowFigures.chooseData")
    found = results()
    # where each number stands among the results, its factor, and half a unit of its last digit
    keys = {"bits": ("test", 1, 5e-5), "sampling": ("sampling", 1e3, 5e-4)}
    keys |= {"memory": ("memory_mb", 1, 0.05), "looks": ("looks", 1, 5e-3)}
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


def test_choose_sorts_filters_and_finds_the_front(arithmetic: Page) -> None:
    draw = random.Random(5)
    rows = [
        {"name": str(i), "kind": draw.choice("ab"), "x": draw.randint(0, 9), "y": draw.randint(0, 9)}
        for i in range(60)
    ]
    rising, falling, some, best = arithmetic.evaluate(
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
        number, seen = readout(page, figure)[log_det], pictures(page, figure)
        if slider.get_attribute("aria-label").startswith(STILL.get(figure, "none")):
            number = None  # a shift moves no volume and a search no curve: their log-det must stay
        push(page, slider, how)
        now = pictures(page, figure)
        assert all(now[name] != seen[name] for name in seen), (
            f"{slider.get_attribute('aria-label')} moves nothing"
        )
        assert readout(page, figure)[log_det] != number


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


def test_narrow_layers_and_orders_say_who_is_lost(page: Page) -> None:
    assert readout(page, "made")["pairs lost"] == "0"
    set_slider(page, "made", 1, 1)  # one unit, of degree 1
    settle(page)
    assert readout(page, "made")["pairs lost"] == "3"
    page.locator("[data-figure=made] select").select_option("backward")
    settle(page)
    assert readout(page, "made")["sees inputs"] == "4"


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


def test_the_slides_example(page: Page) -> None:
    """X = 4 Z with Z uniform on [0, 2] has density 1/8, not 1/2: what the figure opens with."""
    shown = readout(page, "change")
    assert (shown["pZ(z)"], shown["|f ′(z)|"], shown["pX(x)"]) == ("0.5000", "4.000", "0.1250")
    assert float(shown["log |f ′(z)|"]) == pytest.approx(math.log(4), abs=6e-4)


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


def column(page: Page, number: int) -> list[float]:
    """The numbers of one column of the table, from the top; column 1 is that of the bits."""
    cells = page.locator(f"[data-figure=choose] tbody tr > :nth-child({number + 1})").all_inner_texts()
    return [float(cell.replace("−", "-")) for cell in cells]


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


def test_nothing_moves_by_itself(page: Page) -> None:
    moving = page.evaluate(
        """[...document.querySelectorAll(".flow-figure *")].map(part => getComputedStyle(part))
            .filter(style => style.transitionDuration !== "0s" || style.animationName !== "none").length"""
    )
    assert moving == 0


def test_print_leaves_room_for_the_still_figure(page: Page) -> None:
    page.emulate_media(media="print")
    assert not any(place.is_visible() for place in page.locator(".flow-figure").all())


def test_unknown_figure_keeps_its_text(page: Page) -> None:
    assert page.locator("[data-figure=none]").inner_text() == "See the book."


def test_book_places_every_figure(browser: Browser, html: Path, pages: list[Path]) -> None:
    placed: set[str] = set()
    for path in pages:
        if "data-figure=" not in (html / path).read_text("utf-8"):
            continue
        page, errors = browser.new_page(viewport=PHONE), []
        page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
        page.goto((html / path).as_uri())
        page.evaluate("flowFigures.ready")
        settle(page)
        for place in page.locator(".flow-figure").all():
            name = place.get_attribute("data-figure")
            box = place.bounding_box()
            assert place.locator(".flow-readout dd").first.inner_text(), f"{path}: {name} is not filled"
            assert box["x"] >= 0, f"{path}: {name} is cut"
            assert box["x"] + box["width"] <= PHONE["width"], f"{path}: {name} is cut"
            placed.add(name)
        page.close()
        assert not errors, f"{path}: {errors}"
    assert placed == set(FIGURES), "place the others in a lecture: <div class='flow-figure' data-figure='…'>"
