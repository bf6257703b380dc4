"""Draw a density: the page's arithmetic is flowlib's and torch's, and pointer, finger and keyboard drive it.

Opened from a file, as a reader does who has no server.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, BrowserContext, Page
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from flowlib import MODELS, Flow, fit
from tests.book.conftest import on_a_phone
from tests.book.visits import PHONE

pytestmark = pytest.mark.browser

STATIC = Path(__file__).parents[2] / "book" / "_static"
PAGE = f"""<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>Draw</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="{STATIC.as_uri()}/flow-figures.css">
<script src="{STATIC.as_uri()}/flow-figures.js"></script></head>
<body><div class="flow-figure" data-figure="draw">Needs scripts.</div><img class="flow-still" alt=""></body>
</html>"""
# the page's models, and smaller ones with other shapes
SIZES: dict[str, list[dict[str, Any]]] = {
    "realnvp": [
        {"layers": 8, "hidden": [32, 32]},
        {"layers": 3, "hidden": [5]},
        {"layers": 2, "hidden": [4, 7, 3]},
    ],
    "planar": [{"layers": 16}, {"layers": 1}],
}
CASES = [(name, size) for name, sizes in SIZES.items() for size in sizes]
CALL = "const flow = flowFigures.train[name](size), floats = list => Float64Array.from(list);"


@pytest.fixture(autouse=True)
def _float64(same_start: None) -> None:
    torch.set_default_dtype(torch.float64)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("draw") / "page.html"
    file.write_text(PAGE, "utf-8")
    return file.as_uri()


@contextmanager
def opened(phone: BrowserContext, address: str, before: str = "") -> Iterator[Page]:
    """The page on a phone; an error or a warning in its console fails the test."""
    with on_a_phone(phone, address, before=before) as page:
        page.locator("dd").first.wait_for()
        yield page


@pytest.fixture
def page(phone: BrowserContext, address: str) -> Iterator[Page]:
    """A fresh page, to draw on."""
    with opened(phone, address) as page:
        yield page


@pytest.fixture(scope="module")
def arithmetic(phone: BrowserContext, address: str) -> Iterator[Page]:
    """One page for all tests that only calculate."""
    with opened(phone, address) as page:
        yield page


# --- the arithmetic ------------------------------------------------------------------


def close(name: str, ours: list[float] | dict[str, float], theirs: Tensor) -> None:
    """Equal to 1e-6 of each number; below that of the largest, rounding may have its say."""
    numbers = torch.tensor(list(ours.values()) if isinstance(ours, dict) else ours)
    theirs = theirs.detach().flatten()
    torch.testing.assert_close(
        numbers, theirs, rtol=1e-6, atol=1e-12 * float(theirs.abs().max()), msg=lambda text: f"{name}: {text}"
    )


def flow_of(name: str, size: dict[str, Any], theta: Tensor) -> Flow:
    """flowlib's model with these parameters."""
    flow = MODELS[name](**size)
    vector_to_parameters(theta, flow.parameters())
    return flow


def parameters(name: str, size: dict[str, Any], seed: int) -> Tensor:
    """Away from zeros, and for planar layers u·w on both sides of where it is bent."""
    draw = torch.Generator().manual_seed(seed)
    n = len(parameters_to_vector(MODELS[name](**size).parameters()))
    return (0.4 if name == "realnvp" else 1.5) * torch.randn(n, generator=draw)


@pytest.mark.parametrize(("name", "size"), CASES)
@pytest.mark.parametrize("points", [1, 37, 300])
def test_risk_and_gradient_are_flowlibs(arithmetic: Page, name: str, size: dict, points: int) -> None:
    for seed in range(2):
        theta = parameters(name, size, seed)
        x = 2 * torch.randn(points, 2, generator=torch.Generator().manual_seed(seed + 10))
        flow = flow_of(name, size, theta)
        risk = -flow.log_prob(x).mean()
        risk.backward()
        ours = arithmetic.evaluate(
            f"""([name, size, theta, x]) => {{ {CALL}
                const gradient = new Float64Array(flow.size).fill(NaN);
                flow.risk(floats(theta), floats([...x, ...x]), gradient); // another number of points before
                return {{risk: flow.risk(floats(theta), floats(x), gradient), gradient: Array.from(gradient),
                    logProb: Array.from(flow.logProb(floats(theta), floats(x))),
                    generated: Array.from(flow.generate(floats(theta), floats(x)))}};
            }}""",
            [name, size, theta.tolist(), x.flatten().tolist()],
        )
        close("risk", [ours["risk"]], risk)
        close("gradient", ours["gradient"], parameters_to_vector(p.grad for p in flow.parameters()))
        close("log p", ours["logProb"], flow.log_prob(x))
        close("x = f(z)", ours["generated"], flow.decode(x))


def test_planar_gradients_where_u_is_far_along_w(arithmetic: Page) -> None:
    """u·w far below −1, where it is held, and above 40, where the bend is a line."""
    size = {"layers": 2}
    theta = torch.tensor([1.0, 0.5, 2.0, -1.0, -9.0, 3.0, 30.0, 4.0, 0.3, -0.7])
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(3))
    flow = flow_of("planar", size, theta)
    risk = -flow.log_prob(x).mean()
    risk.backward()
    ours = arithmetic.evaluate(
        f"""([name, size, theta, x]) => {{ {CALL}
            const gradient = new Float64Array(flow.size);
            return [flow.risk(floats(theta), floats(x), gradient), ...gradient]; }}""",
        ["planar", size, theta.tolist(), x.flatten().tolist()],
    )
    close("risk and gradient", ours, torch.cat([risk[None], *(p.grad.flatten() for p in flow.parameters())]))


def test_adam_is_torchs(arithmetic: Page) -> None:
    draw = torch.Generator().manual_seed(5)
    theta = torch.randn(40, generator=draw)
    # gradients of all sizes, some of them zero at first
    gradients = torch.randn(10, 40, generator=draw) * 10.0 ** torch.randint(-9, 3, (40,), generator=draw)
    gradients[:3, :5] = 0
    rates = [0.05 / (1 + t) for t in range(10)]
    parameter = torch.nn.Parameter(theta.clone())
    optimiser = torch.optim.Adam([parameter])
    wanted = []
    for gradient, lr in zip(gradients, rates, strict=True):
        optimiser.param_groups[0]["lr"] = lr
        parameter.grad = gradient
        optimiser.step()
        wanted.append(parameter.detach().clone())
    ours = arithmetic.evaluate(
        """([theta, gradients, rates]) => {
            const now = Float64Array.from(theta), descend = flowFigures.train.adam(now.length);
            const step = (gradient, t) => { descend(now, gradient, rates[t]); return Array.from(now); };
            return gradients.map(step);
        }""",
        [theta.tolist(), gradients.tolist(), rates],
    )
    for step, (mine, theirs) in enumerate(zip(ours, wanted, strict=True), 1):
        close(f"step {step}", mine, theirs)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("clip", [0.1, 1e6])
def test_training_is_fits(arithmetic: Page, name: str, clip: float) -> None:
    """Batches, clipping, Adam, schedule: on copies of one point, without noise, no draw matters."""
    setting = {"steps": 10, "batch": 8, "lr": 0.02, "clip": clip, "noise": 0}
    point = [1.3, -0.8]
    theta, risks, after = arithmetic.evaluate(
        """([model, setting, points]) => {
            const run = flowFigures.train.training({model, seed: 4, points, ...setting});
            const theta = Array.from(run.theta), risks = [];
            while (run.step < run.steps) risks.push(run.advance());
            return [theta, risks, Array.from(run.theta)];
        }""",
        [name, setting, point * 3],
    )
    flow = flow_of(name, SIZES[name][0], torch.tensor(theta))
    rows = torch.tensor(point).repeat(8, 1)
    history = fit(flow, rows, steps=10, batch_size=8, lr=0.02, clip=clip, progress=False)
    close("risks", risks, torch.tensor(history.loss))
    close("parameters", after, parameters_to_vector(flow.parameters()))
    assert any(length > clip for length in history.grad_norm) == (clip < 1)


@pytest.mark.parametrize(("name", "size"), [("realnvp", {"layers": 4, "hidden": [16, 16]}), CASES[-2]])
def test_start_is_distributed_as_flowlibs(arithmetic: Page, name: str, size: dict[str, Any]) -> None:
    runs = 60
    ours = arithmetic.evaluate(
        f"""([name, size, runs]) => {{ {CALL}
            const start = (_, seed) => Array.from(flow.start(flowFigures.train.random(seed)));
            return Array.from({{length: runs}}, start);
        }}""",
        [name, size, runs],
    )
    theirs = torch.stack(
        [parameters_to_vector(MODELS[name](**size).parameters()) for _ in range(runs)]
    ).detach()
    places = [parameter.numel() for parameter in MODELS[name](**size).parameters()]
    for mine, other in zip(torch.tensor(ours).split(places, 1), theirs.split(places, 1), strict=True):
        deviation = float(other.std())
        assert float(mine.mean()) == pytest.approx(float(other.mean()), abs=0.15 * deviation + 1e-12)
        for power in (1, 2, 4):
            moment = float(other.abs().pow(power).mean())
            assert float(mine.abs().pow(power).mean()) == pytest.approx(moment, rel=0.25)


@pytest.mark.parametrize(("name", "steps", "bound"), [("realnvp", 120, 3.05), ("planar", 400, 3.05)])
def test_two_moons_are_learned(arithmetic: Page, name: str, steps: int, bound: float) -> None:
    """One Gaussian stands at 3.49 nats on these points."""
    for seed in range(2):
        gaussian, risk = arithmetic.evaluate(
            """([model, seed, steps]) => {
                const points = flowFigures.points.example("two-moons", seed), risks = [];
                const run = flowFigures.train.training({model, seed, points});
                while (run.step < steps) risks.push(run.advance());
                const gaussian = flowFigures.points.gaussianRisk(points, flowFigures.train.SETTINGS.noise);
                return [gaussian, risks.slice(-20).reduce((sum, risk) => sum + risk) / 20];
            }""",
            [name, seed, steps],
        )
        assert gaussian == pytest.approx(3.49, abs=0.06)
        assert risk < bound


def test_one_gaussian_is_the_best_gaussian(arithmetic: Page) -> None:
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(6)) @ torch.tensor(
        [[2.0, 0.7], [0.0, 0.5]]
    )
    best = torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.T, correction=0))
    ours = arithmetic.evaluate("x => flowFigures.points.gaussianRisk(x, 0)", x.flatten().tolist())
    close("risk", [ours], -best.log_prob(x).mean())


def test_points_survive_a_link(arithmetic: Page) -> None:
    for name in ["two-moons", "checkerboard", "eight-gaussians", "rings", "spiral", "letter"]:
        points, again, text = arithmetic.evaluate(
            """name => { const {example, toText, fromText} = flowFigures.points;
                const points = example(name, 3), text = toText(points);
                return [Array.from(points), Array.from(fromText(text)), text]; }""",
            name,
        )
        assert points == again
        assert len(text) == 3 * 800
        assert max(map(abs, points)) < 4.5
        assert len(set(points)) > 200
    refused = arithmetic.evaluate("['A', 'AA*', 'A'.repeat(2403)].map(flowFigures.points.fromText)")
    assert refused == [None, None, None]


# --- the page --------------------------------------------------------------------------


def shown(page: Page) -> dict[str, str]:
    """The numbers under the pictures."""
    return page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".flow-readout div")]
            .map(row => [...row.children].map(part => part.textContent)))"""
    )


def step_of(page: Page) -> int:
    return int(shown(page)["step"].split()[0])


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def wait_for_step(page: Page, least: int) -> None:
    page.wait_for_function(f"parseInt(document.querySelector('dd').textContent) >= {least}", timeout=60_000)


def pictures(page: Page) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('canvas')].map(canvas => canvas.toDataURL())")


def points_in(page: Page) -> str:
    """What the address says of the points."""
    return page.evaluate("new URLSearchParams(location.hash.slice(1)).get('points')")


def settle(page: Page) -> None:
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def draw_by_mouse(page: Page) -> None:
    box = page.locator(".flow-paper").bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 80)
    page.mouse.down()
    for i in range(1, 8):
        page.mouse.move(box["x"] + 60 + 30 * i, box["y"] + 80 + 12 * i)
    page.mouse.up()
    settle(page)


def test_nothing_runs_until_asked(page: Page) -> None:
    before = pictures(page)
    page.wait_for_timeout(500)
    assert pictures(page) == before
    assert step_of(page) == 0
    assert page.evaluate("location.hash") == ""


def test_training_moves_all_pictures_and_leaves_the_page_fluid(page: Page) -> None:
    heat, dots, grid, curve = pictures(page)
    page.evaluate(
        """() => { [window.long, window.gaps] = [[], []];
            const note = list => window.long.push(...list.getEntries().map(entry => entry.duration));
            new PerformanceObserver(note).observe({type: "longtask"});
            let last = performance.now();
            const frame = now => { window.gaps.push(now - last); last = now; requestAnimationFrame(frame); };
            requestAnimationFrame(frame); }"""
    )
    press(page, "Train")
    wait_for_step(page, 60)
    long, gaps = page.evaluate("[window.long, window.gaps]")
    # the machine may be busy with other tests: a single long task is no fault of the page's, many are
    assert statistics.median(gaps) < 60, f"{gaps} ms from one frame to the next"
    assert sum(long) < 0.3 * sum(gaps), f"long tasks of {long} ms in {sum(gaps)} ms"
    press(page, "Pause")
    settle(page)
    after = pictures(page)
    assert after[1] == dots
    assert all(
        old != new for old, new in zip([heat, grid, curve], [after[0], after[2], after[3]], strict=True)
    )
    assert float(shown(page)["R̂(θ), nats"]) < 4


def test_pause_step_and_reset(page: Page) -> None:
    fresh = pictures(page)
    press(page, "Train")
    wait_for_step(page, 3)
    press(page, "Pause")
    page.get_by_role("button", name="Go on").wait_for()
    page.wait_for_timeout(1000)  # for the worker's last picture
    stood = step_of(page)
    page.wait_for_timeout(300)
    assert step_of(page) == stood
    press(page, "One step")
    wait_for_step(page, stood + 1)
    assert step_of(page) == stood + 1
    press(page, "Reset")
    page.get_by_role("button", name="Train", exact=True).wait_for()
    settle(page)
    assert pictures(page) == fresh


def test_the_same_seed_gives_the_same_training(page: Page) -> None:
    def risk_after_three(seed: str) -> str:
        page.get_by_label("seed").fill(seed)
        page.get_by_label("seed").press("Enter")
        page.wait_for_function("document.querySelector('dd').textContent.startsWith('0 ')")
        for k in range(1, 4):
            press(page, "One step")
            wait_for_step(page, k)
        return shown(page)["R̂(θ), nats"]

    first, other, again = risk_after_three("7"), risk_after_three("8"), risk_after_three("7")
    assert first == again != other


def test_planar_is_trained_too_and_both_curves_stay(page: Page) -> None:
    for _ in range(2):
        press(page, "One step")
    wait_for_step(page, 2)
    settle(page)
    curve = pictures(page)[3]
    page.get_by_role("combobox", name="model").select_option("planar")
    page.wait_for_function("document.querySelector('dd').textContent.startsWith('0 ')")
    press(page, "Train")
    wait_for_step(page, 30)
    press(page, "Pause")
    settle(page)
    assert pictures(page)[3] != curve
    assert "model=planar" in page.url
    page.get_by_role("combobox", name="points").select_option("rings")
    page.wait_for_function("document.querySelector('dd').textContent.startsWith('0 ')")
    assert points_in(page) == "rings"


def test_a_drawing_takes_the_examples_place_trains_and_is_shared(page: Page, phone: BrowserContext) -> None:
    draw_by_mouse(page)
    assert page.get_by_role("combobox", name="points").input_value() == "own"
    wait_for_step(page, 5)
    press(page, "Pause")
    count, link = int(shown(page)["points"]), points_in(page)
    assert 40 < count < 300
    assert link == "~" + link[1:]
    assert len(link) == 1 + 3 * count
    page.get_by_label("seed").fill("12")
    page.get_by_label("seed").press("Enter")
    page.get_by_role("combobox", name="model").select_option("planar")
    settle(page)
    press(page, "Copy link")
    page.get_by_text("The link is").wait_for()
    with opened(phone, page.url) as other:
        assert other.get_by_label("seed").input_value() == "12"
        assert other.get_by_role("combobox", name="model").input_value() == "planar"
        assert shown(other)["points"] == str(count)
        settle(other)
        # the same points and parameters, once both workers have shown them
        page.wait_for_function(
            "wanted => document.querySelectorAll('canvas')[2].toDataURL() === wanted", arg=pictures(other)[2]
        )
        assert pictures(other) == pictures(page)
        press(other, "One step")
        wait_for_step(other, 1)
        press(page, "One step")
        wait_for_step(page, 1)
        assert shown(other) == shown(page)


def test_a_broken_link_is_said(phone: BrowserContext, address: str) -> None:
    with opened(phone, f"{address}#points=~AA*&seed=x&model=none") as page:
        page.get_by_text("The link’s points could not be read.").wait_for()
        assert shown(page)["points"] == "800"


def test_a_running_training_hears_new_points(page: Page) -> None:
    draw_by_mouse(page)
    wait_for_step(page, 3)
    before, count = step_of(page), int(shown(page)["points"])
    box = page.locator(".flow-paper").bounding_box()
    page.mouse.click(box["x"] + 200, box["y"] + 300)
    settle(page)
    assert int(shown(page)["points"]) == count + 12
    wait_for_step(page, before + 1)


def test_drawn_and_driven_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    for _ in range(12):
        if page.evaluate("document.activeElement.className").startswith("flow-pen"):
            break
        page.keyboard.press("Tab")
    pen = page.locator(".flow-pen")
    assert pen.evaluate("pen => pen === document.activeElement")
    for key in ("Shift+ArrowUp", "ArrowLeft"):
        page.keyboard.press(key)
    assert pen.get_attribute("aria-valuetext") == "at (−0.20, 1.00)"
    assert points_in(page) is None  # the pen was not on the paper
    page.keyboard.press("Space")
    settle(page)
    assert shown(page)["points"] == "12"
    wait_for_step(page, 1)  # it learns at once
    page.keyboard.press("Enter")
    for key in ("ArrowRight", "Shift+ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    settle(page)
    assert 40 < int(shown(page)["points"]) < 60
    page.get_by_role("button", name="Pause").press("Enter")
    page.get_by_role("button", name="Go on").wait_for()
    page.get_by_role("button", name="Clear").press("Enter")
    settle(page)
    assert shown(page)["points"] == "0"
    assert page.get_by_role("button", name="Train", exact=True).is_disabled()


def test_drawn_by_a_finger(page: Page) -> None:
    box = page.locator(".flow-paper").bounding_box()
    finger, scrolled = page.context.new_cdp_session(page), page.evaluate("scrollY")
    x, y = box["x"] + 50, box["y"] + 50
    finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 9):
        point = {"x": x + 12 * step, "y": y + 20 * step}
        finger.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    settle(page)
    assert int(shown(page)["points"]) > 60
    assert page.evaluate("scrollY") == scrolled
    wait_for_step(page, 1)


def test_the_pen_rubs_out(page: Page) -> None:
    page.get_by_role("combobox", name="points").select_option("checkerboard")
    settle(page)
    page.get_by_role("combobox", name="pen").select_option("rub")
    box = page.locator(".flow-paper").bounding_box()
    page.mouse.click(box["x"] + 0.62 * box["width"], box["y"] + 0.38 * box["height"])  # on a dark square
    settle(page)
    assert 700 < int(shown(page)["points"]) < 800


def test_where_workers_are_refused_the_page_trains_itself(phone: BrowserContext, address: str) -> None:
    with opened(phone, address, before="delete window.Worker") as page:
        press(page, "Train")
        wait_for_step(page, 20)
        press(page, "Pause")
        page.get_by_role("button", name="Go on").wait_for()


def test_ends_at_the_last_step_and_starts_again(page: Page) -> None:
    page.get_by_role("combobox", name="model").select_option("planar")
    press(page, "Train")
    page.get_by_role("button", name="Train again").wait_for(timeout=120_000)
    assert step_of(page) == 1500
    assert float(shown(page)["R̂(θ), nats"]) < 2.9
    press(page, "Train again")
    page.get_by_role("button", name="Pause").wait_for()


# --- every reader ----------------------------------------------------------------------


def test_fits_a_phone_and_a_finger(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    frame = page.locator(".flow-figure").bounding_box()
    for target in page.locator("input, select, button, .flow-paper").all():
        box = target.bounding_box()
        assert min(box["width"], box["height"]) >= 44
        assert box["x"] >= frame["x"]
        assert box["x"] + box["width"] <= frame["x"] + frame["width"]


def test_named_and_announced_once_it_rests(page: Page) -> None:
    assert all(
        one.get_attribute("aria-label") for one in page.locator("canvas, .flow-pen, .flow-figure").all()
    )
    status = page.locator(".flow-summary")
    assert status.inner_text() == ""
    press(page, "One step")
    page.wait_for_function(
        "document.querySelector('.flow-summary').textContent.startsWith('RealNVP, step 1')"
    )


def test_follows_the_theme(page: Page) -> None:
    light = pictures(page)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    settle(page)
    assert all(old != new for old, new in zip(light, pictures(page), strict=True))


def test_a_still_picture_for_print_and_without_scripts(page: Page, browser: Browser, address: str) -> None:
    still = page.locator(".flow-still")
    assert still.evaluate("still => getComputedStyle(still).display") == "none"
    page.emulate_media(media="print")
    assert still.evaluate("still => getComputedStyle(still).display") != "none"
    assert not page.locator(".flow-figure").is_visible()
    context = browser.new_context(java_script_enabled=False)
    bare = context.new_page()
    bare.goto(address)
    assert bare.locator(".flow-figure").inner_text() == "Needs scripts."
    assert "flow-still" in (bare.content())
    context.close()


def test_the_book_has_the_page(phone: BrowserContext, html: Path) -> None:
    with opened(phone, (html / "book" / "draw.html").as_uri()) as page:
        still = page.locator("figure.flow-still")
        assert still.evaluate("still => getComputedStyle(still).display") == "none"
        draw_by_mouse(page)
        wait_for_step(page, 3)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
