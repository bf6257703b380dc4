"""A Glow in the book: its samples and log-probabilities are flowlib's, and every reader can draw and ask."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, BrowserContext, Page
from torch import Tensor
from torch.nn.functional import one_hot

from benchmarks import glow_in_the_book, glow_weights
from flowlib import Flow, bits_per_dim
from flowlib.data import digits
from tests.book.conftest import on_a_phone
from tests.book.test_flow_figures import PAGE, STATIC, readout, settle
from tests.book.visits import PHONE

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
SCRIPT = glow_in_the_book.SCRIPT.read_text("utf-8")
READ, SAMPLE = "[data-figure=glow-read]", "[data-figure=glow-sample]"


@pytest.fixture(autouse=True)
def _float64(same_start: None) -> None:
    torch.set_default_dtype(torch.float64)  # JavaScript's only number


@pytest.fixture(scope="module")
def flow() -> Flow:
    """flowlib's Glow with the numbers of the page's script."""
    made = glow_in_the_book.make().double()
    glow_weights.fill(glow_weights.before_dequantisation(made), glow_weights.read(SCRIPT))
    return made.eval()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small page of its own with both figures."""
    figures = "".join(
        f'<div class="flow-figure" data-figure="{name}">See the book.</div>'
        for name in ("glow-read", "glow-sample")
    )
    file = tmp_path_factory.mktemp("glow") / "page.html"
    file.write_text(PAGE.format(static=STATIC.as_uri(), figures=figures), "utf-8")
    return file.as_uri()


@pytest.fixture
def page(phone: BrowserContext, address: str) -> Iterator[Page]:
    """The page on a phone, from disk; an error in its console fails the test."""
    with on_a_phone(phone, address) as page:
        settle(page)
        yield page


def close(ours: list, theirs: Tensor) -> None:
    torch.testing.assert_close(torch.tensor(ours), theirs.detach(), rtol=1e-9, atol=1e-9)


def context(labels: Tensor) -> Tensor:
    return one_hot(labels, 10).double()


def log_prob(flow: Flow, levels: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
    """log p(x + u | label), with this noise instead of draws; the latents, too."""
    z, log_det = glow_weights.before_dequantisation(flow).inverse((levels + noise) / 17, context(labels))
    return flow.base.log_prob(z) + log_det - 64 * math.log(17)


def noises(page: Page) -> Tensor:
    return torch.tensor(page.evaluate("flowFigures.math.glowModel().then(model => model.noises)"))


# --- the numbers ---------------------------------------------------------------------


def test_weights_are_small_and_rounded_once_for_all(flow: Flow) -> None:
    assert len(SCRIPT.encode()) < 1_000_000
    assert glow_weights.script(flow, glow_weights.read(SCRIPT)["facts"]) == SCRIPT
    unrounded = torch.tensor([0.3, -1.0, 1e-3])
    assert not torch.equal(glow_weights.unpack(glow_weights.pack(unrounded)), unrounded)


def test_samples_are_flowlibs(page: Page, flow: Flow) -> None:
    z = torch.randn(20, 1, 8, 8) * torch.linspace(0.2, 1.3, 20)[:, None, None, None]
    labels = torch.arange(20) % 10
    found = page.evaluate(
        """async ([z, labels]) => {
            const model = await flowFigures.math.glowModel();
            return z.map((latent, k) => model.decode(latent, labels[k]));
        }""",
        [z.flatten(1).tolist(), labels.tolist()],
    )
    smooth, log_det = glow_weights.before_dequantisation(flow).forward(z, context(labels))
    close([one["smooth"] for one in found], smooth.flatten(1))
    close([one["logProb"] for one in found], flow.base.log_prob(z) - log_det - 64 * math.log(17))
    drawn = flow.decode(z, context(labels)).flatten(1).tolist()
    assert [one["levels"] for one in found] == drawn


def test_log_prob_latents_and_bayes_are_flowlibs(page: Page, flow: Flow) -> None:
    images = digits("test")[0][:6].double()
    noise = noises(page)
    assert noise.shape == (8, 64)
    assert noise.unique().numel() == 8 * 64
    assert 0 <= noise.min() < 0.01
    assert 0.99 < noise.max() < 1
    found = page.evaluate(
        """async images => {
            const model = await flowFigures.math.glowModel();
            return images.map(x => [model.read(x, model.noises[3]), model.encode(x, model.noises[3], 4)]);
        }""",
        images.flatten(1).tolist(),
    )
    u = noise[3].view(1, 1, 8, 8)
    logs = torch.stack([log_prob(flow, images, u, torch.full((6,), label)) for label in range(10)], 1)
    close([read["logs"] for read, _ in found], logs)
    close([read["logProb"] for read, _ in found], logs.logsumexp(1) - math.log(10))
    close([read["shares"] for read, _ in found], logs.softmax(1))
    four = context(torch.full((6,), 4))
    z = glow_weights.before_dequantisation(flow).inverse((images + u) / 17, four)[0]
    close([encoded["z"] for _, encoded in found], z.flatten(1))


def test_between_two_latents_keeps_both_ends_and_the_length(page: Page) -> None:
    between = "([a, b, t]) => flowFigures.math.glowBetween(a, b, t)"
    a, b = torch.randn(2, 64)
    b -= a * (a @ b) / (a @ a)
    b *= a.norm() / b.norm()
    for t, expected in ((0, a), (1, b), (0.5, (a + b) / math.sqrt(2))):
        close(page.evaluate(between, [a.tolist(), b.tolist(), t]), expected)
    on_the_way = torch.tensor(page.evaluate(between, [a.tolist(), b.tolist(), 0.3]))
    assert on_the_way.norm() == pytest.approx(a.norm().item())


def test_draws_are_normal(page: Page) -> None:
    drawn = page.evaluate("(() => Array.from({length: 20000}, flowFigures.math.generator(5).normal))()")
    normal = torch.distributions.Normal(0.0, 1.0)
    shares = normal.cdf(torch.tensor(drawn)).sort().values
    assert (shares - torch.arange(20000) / 20000).abs().max() < 1.63 / math.sqrt(20000)  # 1 % by Kolmogorov


# --- asking for a digit -------------------------------------------------------------------


def shown(page: Page, which: str, images: int = 1) -> list[int]:
    """The levels that a canvas shows, read from the middle of its pixels; images have gaps between."""
    alpha = page.locator(which).evaluate(
        """(canvas, images) => {
            const {width, height} = canvas;
            const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
            const side = width / (images + 0.12 * (images - 1));
            const middle = (pixel) => (pixel + 0.5) * side / 8;
            return Array.from({length: 64 * images}, (_, k) => {
                const x = Math.floor(k / 64) * 1.12 * side + middle(k % 8);
                return data[4 * (Math.floor(middle((k >> 3) % 8)) * width + Math.floor(x)) + 3];
            });
        }""",
        images,
    )
    return [round(16 * value / 255) for value in alpha]


def three(page: Page) -> list[list[int]]:
    settle(page)
    return [shown(page, f"{SAMPLE} canvas >> nth={k}") for k in range(3)]


def test_figure_shows_what_flowlib_decodes(page: Page, flow: Flow) -> None:
    normals = torch.tensor(
        page.evaluate("(() => Array.from({length: 192}, flowFigures.math.generator(2).normal))()")
    )
    first, second, third = normals.view(3, 1, 1, 8, 8)
    sliders = page.locator(f"{SAMPLE} input")

    def expect(a: Tensor, b: Tensor, label: int, T: float, t: float) -> None:
        middle = math.cos(t * math.pi / 2) * a + math.sin(t * math.pi / 2) * b
        z = T * torch.cat([a, middle, b])
        labels = torch.full((3,), label)
        log_det = glow_weights.before_dequantisation(flow).forward(z, context(labels))[1]
        of_all = flow.decode((T * middle).expand(10, -1, -1, -1), context(torch.arange(10)))
        assert three(page) == flow.decode(z, context(labels)).flatten(1).tolist()
        assert shown(page, f"{SAMPLE} .flow-ten canvas", 10) == of_all.flatten().tolist()
        log_p = flow.base.log_prob(z) - log_det - 64 * math.log(17)
        said = readout(page, "glow-sample")
        assert float(said["bits per dim."]) == pytest.approx(bits_per_dim(log_p, 64)[1].item(), abs=6e-3)
        assert float(said["‖T z‖² / 64"]) == pytest.approx(z[1].square().mean().item(), abs=6e-3)

    expect(first, second, 3, 0.7, 0.5)
    page.locator(f"{SAMPLE} select").select_option("7")
    expect(first, second, 7, 0.7, 0.5)
    sliders.nth(0).fill("1")
    sliders.nth(1).fill("0.25")
    expect(first, second, 7, 1.0, 0.25)
    page.locator(f"{SAMPLE} button").click()
    expect(second, third, 7, 1.0, 0.25)


def test_label_temperature_and_ends(page: Page) -> None:
    temperature, between = page.locator(f"{SAMPLE} input").all()
    left, middle, right = before = three(page)
    assert left != middle != right != left
    between.press("Home")
    assert three(page) == [left, left, right]
    between.press("End")
    assert three(page) == [left, right, right]
    page.locator(f"{SAMPLE} select").select_option("8")
    assert all(now != then for now, then in zip(three(page)[::2], before[::2], strict=True))
    temperature.press("Home")
    left, middle, right = three(page)
    assert left == middle == right  # T = 0: one image for each label


# --- drawing a digit ------------------------------------------------------------------------


def think(page: Page) -> dict[str, str]:
    """Wait until all draws of noise are counted."""
    page.wait_for_selector(f"{READ}[aria-busy=false]")
    settle(page)
    return readout(page, "glow-read")


def drawing(page: Page) -> Tensor:
    """The levels that the pad shows; its grid is drawn beside the middles."""
    return torch.tensor(shown(page, f"{READ} .flow-pad")).view(1, 1, 8, 8)


def expected(flow: Flow, levels: Tensor, noise: Tensor) -> dict[str, float]:
    """Label, share and bits of these levels by flowlib, averaged over the draws of noise."""
    log_p = torch.stack(
        [log_prob(flow, levels, noise.view(-1, 1, 8, 8), torch.full((8,), label)) for label in range(10)], 1
    )
    shares = log_p.softmax(1).mean(0)
    bits = bits_per_dim((log_p.logsumexp(1) - math.log(10)).mean(), 64)
    return {"label": shares.argmax().item(), "share": shares.max().item(), "bits": bits.item()}


def agrees(page: Page, flow: Flow, levels: Tensor) -> dict[str, float]:
    said, wanted = think(page), expected(flow, levels, noises(page))
    assert int(said["taken for"]) == wanted["label"]
    assert float(said["p(y | x)"]) == pytest.approx(wanted["share"], abs=6e-4)
    assert float(said["bits per dim."]) == pytest.approx(wanted["bits"], abs=6e-3)
    return wanted


def test_a_digit_by_keyboard(page: Page, flow: Flow) -> None:
    pad = page.locator(f"{READ} .flow-pad")
    assert readout(page, "glow-read")["taken for"] == "–"
    pad.focus()
    one = torch.zeros(1, 1, 8, 8)
    one[..., 3], one[..., 4] = 16, 12
    for _row in range(8):  # the keyboard starts in the first row, in column 4
        for key in [*["Space"] * 5, "ArrowRight", *["Space"] * 3, "ArrowLeft", "ArrowDown"]:
            pad.press(key)  # five times darker is as dark as four
    page.evaluate("document.activeElement.blur()")  # the pixel's frame is for who has the keyboard
    settle(page)
    assert torch.equal(drawing(page).double(), one)
    assert agrees(page, flow, one)["label"] == 1
    pad.press("Backspace")
    pad.press("ArrowUp")
    one[..., 7, 3] = 0
    agrees(page, flow, one)
    status = page.locator(f"{READ} .flow-summary[aria-live=polite]")
    page.wait_for_function(
        "text => text.textContent.endsWith('row 7, column 4, level 16 of 16.')", arg=status.element_handle()
    )
    assert status.inner_text().startswith("Taken for")


ZERO = [
    [
        (0.5, 0.1),
        (0.3, 0.2),
        (0.25, 0.5),
        (0.3, 0.8),
        (0.5, 0.9),
        (0.7, 0.8),
        (0.75, 0.5),
        (0.7, 0.2),
        (0.5, 0.1),
    ]
]


def draw_by_mouse(page: Page, strokes: list[list[tuple[float, float]]]) -> None:
    pad = page.locator(f"{READ} .flow-pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    for (x, y), *rest in strokes:
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.mouse.down()
        for x, y in rest:
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=2)
        page.mouse.up()


def test_a_digit_by_mouse_and_away_with_it(page: Page, flow: Flow) -> None:
    draw_by_mouse(page, ZERO)
    levels = drawing(page)
    assert agrees(page, flow, levels.double())["label"] == 0
    assert 0.5 * 4.88 < levels.double().mean() < 1.5 * 4.88  # as much ink as the data have
    page.mouse.move(5, 5)  # the pen is up
    assert torch.equal(drawing(page), levels)
    page.locator(f"{READ} button").click()
    settle(page)
    assert not drawing(page).any()
    assert readout(page, "glow-read")["taken for"] == "–"


def test_a_digit_by_finger_does_not_scroll(page: Page, flow: Flow) -> None:
    pad = page.locator(f"{READ} .flow-pad")
    pad.scroll_into_view_if_needed()
    box, scrolled = pad.bounding_box(), page.evaluate("scrollY")
    finger = page.context.new_cdp_session(page)
    points = [
        {"x": box["x"] + 0.5 * box["width"], "y": box["y"] + s * box["height"]} for s in (0.1, 0.4, 0.7, 0.95)
    ]
    finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": points[:1]})
    for point in points[1:]:
        finger.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    settle(page)
    assert page.evaluate("scrollY") == scrolled
    assert drawing(page)[0, 0, 1:, 3:5].all()
    assert agrees(page, flow, drawing(page).double())["label"] == 1


# --- every reader ------------------------------------------------------------------------------


def test_fits_a_phone_and_a_finger(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for figure in (READ, SAMPLE):
        frame = page.locator(figure).bounding_box()
        for box in page.locator(figure).evaluate(
            """place => [...place.querySelectorAll("*")].filter(part => !part.closest(".flow-summary"))
                .map(part => part.getBoundingClientRect()).filter(({width}) => width)
                .map(({left, right}) => [left, right])"""
        ):
            assert frame["x"] <= box[0]
            assert box[1] <= frame["x"] + frame["width"]
        for target in page.locator(f"{figure} :is(input, select, button, .flow-pad)").all():
            box = target.bounding_box()
            assert min(box["width"], box["height"]) >= 44
        assert all(
            one.get_attribute("aria-label") for one in page.locator(f"{figure} :is(input, canvas)").all()
        )


def test_follows_the_theme(page: Page) -> None:
    draw_by_mouse(page, ZERO)
    think(page)
    pixels = "() => [...document.querySelectorAll('canvas')].map(canvas => canvas.toDataURL())"
    light = page.evaluate(pixels)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    settle(page)
    assert all(then != now for then, now in zip(light, page.evaluate(pixels), strict=True))


def test_the_start_page_reads_a_digit_within_ten_seconds(browser: Browser, html: Path) -> None:
    page, errors = browser.new_page(viewport=PHONE), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    start = time.monotonic()
    page.goto((html / "index.html").as_uri())
    page.wait_for_url("**/book/index.html")
    page.evaluate("flowFigures.ready")
    draw_by_mouse(page, ZERO)
    said = think(page)
    seconds = time.monotonic() - start
    still = page.locator(".flow-still")
    assert not still.is_visible()
    page.emulate_media(media="print")
    assert still.is_visible()
    page.close()
    assert said["taken for"] == "0"
    assert seconds < 10
    assert not errors


def test_the_start_page_states_what_was_measured() -> None:
    measured = json.loads((ROOT / "benchmarks/results/glow_in_the_book.json").read_text("utf-8"))
    facts = glow_weights.read(SCRIPT)["facts"]
    assert {name: facts[name] for name in ("told", "untold", "named")} == {
        name: measured["shipped"][name] for name in ("told", "untold", "named")
    }
    page = (ROOT / "book/index.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "label" not in line]
    rows = {name.strip(): (a.strip(), b.strip()) for _, name, a, b, _ in (row.split("|") for row in rows)}
    for name, value in measured["baselines"].items():
        assert next(row for key, row in rows.items() if key.startswith(name))[0] == f"{value:.2f}"
    for model in ("as in lecture 9", "in the book"):
        runs = [run for run in measured["runs"] if run["model"] == model]
        pair = tuple(", ".join(f"{run[kind]:.2f}" for run in runs) for kind in ("untold", "told"))
        assert pair in rows.values(), f"{model}: {pair}"
    assert tuple(f"{facts[kind]:.2f}" for kind in ("untold", "told")) in rows.values()
    assert f"{100 * facts['named']:.0f} %" in page
    assert f"{100 * measured['shipped']['named one pixel aside']:.0f} %" in page


def test_lecture_9_leads_to_the_start_page() -> None:
    assert "(../book/index.md)" in (ROOT / "nbs/09_glow.ipynb").read_text("utf-8")
