"""The pictures show what they say: extents, values and colours are read back from the figures."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from flowlib import check, plots
from flowlib.bases import StandardNormal, UniformBox
from flowlib.bijection import Bijection, Compose
from flowlib.flow import Flow

BOX = ((-4.0, 4.0), (-3.0, 3.0))

pytestmark = pytest.mark.usefixtures("close_figures")


class Shift(Bijection):
    """x = z + shift."""

    def __init__(self, *shift: float) -> None:
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor(shift))

    def forward(self, z, context=None):
        return z + self.shift, z.new_zeros(z.shape[0])

    def inverse(self, x, context=None):
        return x - self.shift, x.new_zeros(x.shape[0])


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def flow(request):
    return Flow(Compose([Shift(2.0, 0.0), Shift(0.0, 1.0)]), StandardNormal(2)).to(request.param)


def shown(ax) -> np.ndarray:
    return np.asarray(ax.images[0].get_array())


# --- density ----------------------------------------------------------------------------


def test_density_shows_the_flow_at_the_right_place(flow):
    ax = plots.density(flow, BOX, n=120)
    values = shown(ax)
    row, column = np.unravel_index(values.argmax(), values.shape)
    x, y = -4 + 8 * (column + 0.5) / 120, -3 + 6 * (row + 0.5) / 120
    assert abs(x - 2) < 0.05
    assert abs(y - 1) < 0.05
    assert values.max() == pytest.approx(1 / (2 * np.pi), rel=1e-2)
    assert ax.images[0].get_extent() == [-4.0, 4.0, -3.0, 3.0]
    assert ax.images[0].origin == "lower"
    assert ax.images[0].norm.vmin == 0
    assert ax.get_aspect() == 1


def test_density_takes_flows_bases_methods_and_functions(flow):
    images = [shown(plots.density(what, BOX, n=20)) for what in (flow, flow.log_prob, flow.forward)]
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[2])
    base = shown(plots.density(StandardNormal(2), BOX, n=20))
    function = shown(plots.density(lambda x: StandardNormal(2).log_prob(x), BOX, n=20))
    assert np.array_equal(base, function)


def test_density_sums_to_the_mass_in_the_box(flow):
    cell = 8 * 6 / 200**2
    ours = shown(plots.density(flow, BOX, n=200)).sum() * cell
    assert ours == pytest.approx(check.integral(lambda x: flow.double().log_prob(x).exp(), BOX), abs=1e-4)


def test_minus_infinity_is_density_zero():
    values = shown(plots.density(UniformBox(2, -1.0, 1.0).double(), BOX, n=40))
    assert set(np.unique(values)) == {0.0, 0.25}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_density_that_is_no_number_is_refused(value):
    with pytest.raises(
        ValueError, match=r"NaN or \+infinity at 1 of 100 points, the first at \[-3\.6, -2\.7\]"
    ):
        plots.density(lambda x: torch.where(torch.arange(len(x)) == 0, value, 0.0), BOX, n=10)


# --- samples ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_samples_are_where_they_are(dtype):
    x = torch.tensor([[1.0, 2.0], [-0.5, 0.25]], dtype=dtype, requires_grad=True)
    ax = plots.samples(x, box=BOX)
    assert ax.collections[0].get_offsets().tolist() == [[1.0, 2.0], [-0.5, 0.25]]
    assert ax.get_xlim() == BOX[0]
    assert ax.get_ylim() == BOX[1]
    assert ax.get_aspect() == 1
    assert ax.collections[0].get_rasterized()


def test_samples_take_a_colour():
    for options in ({"color": plots.COLOURS[2]}, {"c": [plots.COLOURS[2]] * 3}):
        ax = plots.samples(torch.zeros(3, 2), **options)
        assert tuple(ax.collections[0].get_facecolor()[0][:3]) == to_rgba(plots.COLOURS[2])[:3]
    first = plots.samples(torch.zeros(3, 2)).collections[0].get_facecolor()[0]
    assert tuple(first[:3]) == to_rgba(plots.COLOURS[0])[:3]


def test_samples_must_be_points_of_the_plane():
    for shape in [(3,), (3, 3), (2, 2, 2)]:
        with pytest.raises(ValueError, match=r"x must have shape \(N, 2\), points of the plane, and came as"):
            plots.samples(torch.zeros(shape))


# --- warped grid ------------------------------------------------------------------------


def test_the_grid_of_the_identity_is_the_grid():
    ax = plots.warped_grid(lambda z: z, ((-1, 1), (0, 4)), n=4, fine=3)
    assert len(ax.lines) == 10
    blue = [line for line in ax.lines if line.get_color() == plots.COLOURS[0]]
    red = [line for line in ax.lines if line.get_color() == plots.COLOURS[1]]
    for k, (constant_x, constant_y) in enumerate(zip(blue, red, strict=True)):
        assert constant_x.get_xdata() == pytest.approx(-1 + k / 2)
        assert constant_y.get_ydata() == pytest.approx(k)
        assert constant_x.get_ydata() == pytest.approx(np.linspace(0, 4, 13))


def test_quadrants_keep_their_tints_so_that_a_reflection_shows():
    def tint_at(ax, x, y):
        (cells,) = ax.collections
        inside = [path.contains_point((x, y)) for path in cells.get_paths()]
        (face,) = cells.get_facecolor()[inside]
        return tuple(face[:3])

    plain = plots.warped_grid(lambda z: z, ((-1, 1), (-1, 1)), n=4)
    mirrored = plots.warped_grid(lambda z: z * torch.tensor([-1.0, 1.0]), ((-1, 1), (-1, 1)), n=4)
    corners = {(0.3, 0.3): 4, (-0.3, 0.3): 5, (-0.3, -0.3): 2, (0.3, -0.3): 3}
    for (x, y), colour in corners.items():
        assert tint_at(plain, x, y) == to_rgba(plots.COLOURS[colour])[:3]
        assert tint_at(mirrored, -x, y) == to_rgba(plots.COLOURS[colour])[:3]


def test_the_grid_takes_layers_methods_and_functions(flow):
    layer = Compose([Shift(1.0, 2.0)]).to(flow.base.dtype)
    for function in (layer, layer.forward, lambda z: z + torch.tensor([1.0, 2.0])):
        ax = plots.warped_grid(function, ((0, 1), (0, 1)), n=2)
        assert ax.lines[0].get_xdata() == pytest.approx(1.0)
        assert ax.lines[1].get_ydata() == pytest.approx(2.0)
    assert plots.warped_grid(flow.decode, ((0, 1), (0, 1)), n=2).lines[0].get_xdata() == pytest.approx(2.0)


def test_a_grid_that_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="n must be even, so that grid lines part the quadrants"):
        plots.warped_grid(lambda z: z, BOX, n=5)
    with pytest.raises(ValueError, match=r"function\(z\) must have shape \(N, 2\)"):
        plots.warped_grid(lambda z: z[:, 0], BOX)


# --- trajectory ---------------------------------------------------------------------------


def test_the_trajectory_has_a_panel_for_each_step(flow):
    z = flow.base.sample(40, torch.Generator().manual_seed(1))
    axes = plots.trajectory(flow, z, BOX)
    assert [ax.get_title() for ax in axes] == ["$u^0$", "$u^1$", "$u^2$"]
    for ax, (u, _) in zip(axes, flow.trajectory(z), strict=True):
        assert np.allclose(ax.collections[0].get_offsets(), u.detach().numpy())
        assert ax.get_xlim() == BOX[0]


def test_points_keep_the_colour_of_the_quadrant_they_came_from(flow):
    z = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]]).to(flow.base.dtype)
    for ax in plots.trajectory(flow, z, BOX):
        colours = [tuple(face[:3]) for face in ax.collections[0].get_facecolor()]
        assert colours == [to_rgba(plots.COLOURS[i])[:3] for i in (4, 5, 2, 3)]


def test_the_trajectory_of_densities_moves_the_density(flow):
    axes = plots.trajectory(flow, 1, BOX, show="density", n=48)
    peaks = [np.unravel_index(shown(ax).argmax(), (48, 48)) for ax in axes]
    columns = [-4 + 8 * (column + 0.5) / 48 for _, column in peaks]
    rows = [-3 + 6 * (row + 0.5) / 48 for row, _ in peaks]
    assert columns == pytest.approx([0, 2, 2], abs=0.1)
    assert rows == pytest.approx([0, 0, 1], abs=0.1)


def test_the_trajectory_shows_the_steps_asked_for():
    flow = Flow(Compose([Shift(0.1, 0.0) for _ in range(20)]), StandardNormal(2))
    assert [ax.get_title() for ax in plots.trajectory(flow, 5, BOX, steps=[0, 3, 20])] == [
        "$u^0$",
        "$u^3$",
        "$u^{20}$",
    ]
    titles = [ax.get_title() for ax in plots.trajectory(flow, 5, BOX)]
    assert len(titles) == 12
    assert titles[0] == "$u^0$"
    assert titles[-1] == "$u^{20}$"


def test_a_trajectory_that_cannot_be_drawn_is_refused(flow):
    with pytest.raises(ValueError, match='show must be "samples" or "density" and came as \'points\''):
        plots.trajectory(flow, 5, BOX, show="points")
    for steps in ([0, 3], [-1]):
        with pytest.raises(ValueError, match="steps must lie between 0 and 2, the number of layers"):
            plots.trajectory(flow, 5, BOX, steps=steps)


# --- images -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64, torch.bfloat16])
def test_images_stand_row_after_row_with_white_between(dtype):
    x = torch.arange(5).reshape(5, 1, 1, 1).expand(5, 1, 2, 3).to(dtype)
    seen = shown(plots.images(x, columns=3, high=8))
    wanted = np.ones((5, 11))
    for k, (row, column) in enumerate([(0, 0), (0, 4), (0, 8), (3, 0), (3, 4)]):
        wanted[row : row + 2, column : column + 3] = k / 8
    assert np.array_equal(seen, np.repeat(wanted[:, :, None], 3, 2))


def test_an_image_is_not_turned_and_keeps_its_colours():
    x = torch.rand(2, 3, 4, 5, requires_grad=True)
    seen = shown(plots.images(x, high=1.0))
    assert seen.shape == (4, 11, 3)
    assert np.allclose(seen[:, 6:], x[1].detach().permute(1, 2, 0).numpy())
    assert plots.images(x).images[0].origin == "upper"
    assert shown(plots.images(torch.zeros(11, 1, 2, 2))).shape[:2] == (5, 29)  # ten in a row


def test_images_are_clipped_to_their_range(caplog):
    x = torch.tensor([-9.0, -1.0, 1.0, 3.0, 9.0]).reshape(1, 1, 1, 5)
    assert shown(plots.images(x, low=-1, high=3))[0, :, 0].tolist() == [0, 0, 0.5, 1, 1]
    assert shown(plots.images(x))[0, :, 0] == pytest.approx([0, 0, 1 / 9, 1 / 3, 1])
    assert shown(plots.images(0 * x)).max() == 0
    assert shown(plots.images(x, low=3, high=-1))[0, :, 0].tolist() == [1, 1, 0.5, 0, 0]  # dark on white
    assert not caplog.records  # matplotlib clips too, but complains, and a notebook would show it


def test_images_that_cannot_be_drawn_are_refused():
    for shape in [(4, 4), (1, 4, 4), (2, 2, 4, 4), (0, 1, 4, 4), (1, 1, 0, 4)]:
        with pytest.raises(ValueError, match=r"x must have shape \(N, C, H, W\), with C = 1 for grey or 3"):
            plots.images(torch.zeros(shape))
    with pytest.raises(ValueError, match="x holds NaN or infinity"):
        plots.images(torch.full((1, 1, 2, 2), torch.inf))
    with pytest.raises(ValueError, match="high and low must differ; both came as 0"):
        plots.images(torch.zeros(1, 1, 2, 2), high=0.0)


# --- loss, panels, style --------------------------------------------------------------------


def test_loss_draws_every_step_and_the_floor():
    losses = np.linspace(3.0, 2.0, 200).tolist()
    for history in (SimpleNamespace(loss=losses), losses):
        ax = plots.loss(history, entropy=1.9)
        assert ax.lines[0].get_ydata().tolist() == losses
        mean = ax.lines[1]
        assert mean.get_ydata() == pytest.approx(np.interp(mean.get_xdata(), np.arange(200), losses))
        assert ax.lines[2].get_ydata() == [1.9, 1.9]
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["entropy 1.900: the floor"]
    assert len(plots.loss([2.0, 1.0]).lines) == 2


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3)])
def test_panels_are_as_many_as_asked_for(n, columns):
    figure, axes = plots.panels(n)
    assert len(axes) == n == len(figure.axes)
    assert figure.get_figwidth() == 6.4
    assert len({round(ax.get_position().x0, 3) for ax in axes}) == columns
    with pytest.raises(ValueError, match="panels needs at least one panel; n came as 0"):
        plots.panels(0)


def test_every_function_draws_into_the_axes_it_is_given(flow):
    figure, axes = plots.panels(5)
    drawn = [
        plots.density(flow, BOX, axes[0], n=10),
        plots.samples(torch.zeros(3, 2), axes[1]),
        plots.warped_grid(lambda z: z, BOX, axes[2], n=2),
        plots.loss([1.0, 0.5], axes[3]),
        plots.images(torch.zeros(1, 1, 2, 2), axes[4]),
    ]
    assert drawn == list(axes)
    assert plt.get_fignums() == [figure.number]


def test_a_box_must_be_a_box():
    for box in [((1, 0), (0, 1)), ((0, 1), (1, 1)), ((0, float("nan")), (0, 1))]:
        with pytest.raises(ValueError, match="with low below high"):
            plots.density(StandardNormal(2), box)
        with pytest.raises(ValueError, match="with low below high"):
            plots.samples(torch.zeros(1, 2), box=box)


def test_figures_are_opaque_white_whatever_the_page(tmp_path):
    with plt.rc_context():
        plots.use_style()
        plots.loss([1.0, 0.5])
        plt.savefig(tmp_path / "figure.png")
        pixels = plt.imread(tmp_path / "figure.png")
    assert pixels[..., 3].min() == 1.0
    assert pixels[0, 0].tolist() == [1.0, 1.0, 1.0, 1.0]
    assert pixels.shape[1] == 704  # 6.4 inches at 110 dots


def test_the_colours_differ_in_brightness_or_hue_for_every_reader():
    """In the two common kinds of colour blindness (Viénot, Brettel and Mollon, 1999)."""
    linear = np.array([to_rgba(colour)[:3] for colour in plots.COLOURS]) ** 2.2
    protan = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    deutan = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    for seen in (linear, linear @ protan.T, linear @ deutan.T):
        seen = seen.clip(0, 1) ** (1 / 2.2)
        distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 9 * np.eye(len(seen))
        assert distances.min() > 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_come_from_any_device(flow):
    here = shown(plots.density(flow, BOX, n=20))
    flow.to("cuda")
    assert np.allclose(here, shown(plots.density(flow, BOX, n=20)), atol=1e-6)
    assert np.allclose(here, shown(plots.density(flow.log_prob, BOX, n=20)), atol=1e-6)
    plots.samples(flow.sample(5))
    plots.warped_grid(flow.decode, BOX)
    plots.trajectory(flow, 5, BOX)
    plots.trajectory(flow, flow.base.sample(5), BOX, show="density", n=10)
