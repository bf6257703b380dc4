"""The checks hold for what is true, fail for what is slightly false, and print the bound alone."""

import math
import re

import pytest
import torch

from flowlib import check
from flowlib.bases import StandardNormal
from flowlib.bijection import Bijection, Compose, sum_event
from flowlib.check import CheckFailed

BOX = ((-8, 8), (-8, 8))


class Sinh(Bijection):
    """x = sinh z, with an error of chosen size in one of its four answers."""

    def __init__(self, wrong: str = "", size: float = 0.0) -> None:
        super().__init__()
        self.error = {wrong: size}

    def forward(self, z, context=None):
        shift = 0.0 if context is None else context
        x = z.sinh() + shift + self.error.get("x", 0.0)
        return x, sum_event(z.cosh().log()) + self.error.get("log_det", 0.0)

    def inverse(self, x, context=None):
        z = (x - (0.0 if context is None else context)).asinh()
        return z + self.error.get("z", 0.0), -sum_event(z.cosh().log()) + self.error.get(
            "inverse_log_det", 0.0
        )


@pytest.fixture
def z():
    return torch.randn(5, 2, dtype=torch.float64)


def normal(factor: float):
    """The log-density of a standard normal times a factor."""
    return lambda x: StandardNormal(2).double().log_prob(x) + torch.tensor(factor, dtype=x.dtype).log()


# each row: the claim and a size for which it is false; at size 0 it is true
POINT = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
CLAIMS = {
    "identity": (lambda e: check.identity("1.1", 2.0, 2.0 + e, says="s"), 2e-10),
    "identity float32": (lambda e: check.identity("1.1", torch.ones(3), torch.ones(3) + e, says="s"), 2e-4),
    "identity tol": (lambda e: check.identity("1.1", [1.0, 2.0], [1.0, 2.0 + e], says="s", tol=0.1), 0.11),
    "log_det": (lambda e: check.log_det("1.1", Sinh("log_det", e), POINT), 2e-10),
    "log_det inverse": (lambda e: check.log_det("1.1", Sinh("inverse_log_det", e), POINT), -2e-10),
    "log_det tol": (lambda e: check.log_det("1.1", Sinh("log_det", e), POINT, tol=0.1), 0.11),
    "log_det float32": (lambda e: check.log_det("1.1", Sinh("log_det", e), POINT.float()), 2e-4),
    "round_trip": (lambda e: check.round_trip("1.1", Sinh("z", e), POINT), 2e-10),
    "round_trip x": (lambda e: check.round_trip("1.1", Sinh("x", e), POINT), 3e-10),
    "round_trip log_det": (lambda e: check.round_trip("1.1", Sinh("log_det", e), POINT), 2e-10),
    "integrates_to_one": (lambda e: check.integrates_to_one("1.1", normal(1 + e), BOX), 2e-3),
    "integrates_to_less": (lambda e: check.integrates_to_one("1.1", normal(1 - e), BOX, tol=1e-6), 2e-6),
    "at_most": (lambda e: check.at_most("1.1", [0.5, 1.0 + e], 1.0, says="s"), 1e-12),
    "at_least": (lambda e: check.at_least("1.1", torch.tensor([2.0, 1.0 - e]).double(), 1.0, says="s"), 1e-7),
    "exercise": (lambda e: check.exercise("1.1", [0.5, 1.0 + e], [0.5, 1.0]), 2e-10),
    "exercise tol": (lambda e: check.exercise("1.1", 1.0 + e, 1.0, tol=0.1), 0.11),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_true_claim_holds(claim, capsys):
    statement, _ = CLAIMS[claim]
    statement(0.0)
    assert capsys.readouterr().out.startswith("✓ ")


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_slightly_false_claim_fails(claim, capsys):
    statement, size = CLAIMS[claim]
    with pytest.raises(CheckFailed, match=r"1\.1"):
        statement(size)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("claim", CLAIMS)
def test_nan_never_passes(claim):
    statement, _ = CLAIMS[claim]
    with pytest.raises(CheckFailed):
        statement(math.nan)


@pytest.mark.parametrize("claim", [name for name in CLAIMS if name not in ("at_most", "at_least")])
def test_infinity_never_passes(claim):
    statement, _ = CLAIMS[claim]
    with pytest.raises(CheckFailed):
        statement(math.inf)


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_line_is_the_same_whatever_the_rounding(claim, capsys):
    statement, size = CLAIMS[claim]
    statement(0.0)
    exact = capsys.readouterr().out
    statement(-size / 4 if claim.startswith("at_") else size / 4)
    assert capsys.readouterr().out == exact


def test_lines_name_the_tag_the_claim_and_the_bound(capsys, z):
    check.identity("6.1", 1.0, 1.0, says="one is one", tol=1e-12)
    check.log_det("6.2", Sinh(), z)
    check.log_det("6.2b", Sinh(), z.float())
    check.round_trip("6.3", Sinh(), z)
    check.integrates_to_one("6.4", normal(1.0), BOX)
    check.at_most("6.5", -3.0, 0.25, says="small")
    check.at_least("6.6", [3.0, 4.0], 2, says="large")
    check.exercise("6.7", 1.0, 1.0)
    assert capsys.readouterr().out.splitlines() == [
        "✓ (6.1) one is one: equal to within 1e-12",
        "✓ (6.2) log-det against autograd's Jacobian: equal to within 1e-10",
        "✓ (6.2b) log-det against autograd's Jacobian: equal to within 0.0001",
        "✓ (6.3) inverse(forward(z)) gives z back: to within 1e-10",
        "✓ (6.4) the density integrates to one: to within 0.001",
        "✓ (6.5) small: at most 0.25",
        "✓ (6.6) large: at least 2",
        "✓ exercise 6.7: correct",
    ]


def test_a_failure_says_what_was_expected_and_what_was_found():
    with pytest.raises(CheckFailed, match=r"^\(6\.1\) s: expected equal to within 1e-10, found 0\.5\.$"):
        check.identity("6.1", 1.0, 1.5, says="s")
    with pytest.raises(CheckFailed, match=r"^\(6\.5\) s: expected at most 1, found 3\.$"):
        check.at_most("6.5", [0.0, 3.0], 1, says="s")
    with pytest.raises(CheckFailed, match=r"^\(6\.6\) s: expected at least 1, found -3\.$"):
        check.at_least("6.6", [2.0, -3.0], 1, says="s")
    assert issubclass(CheckFailed, AssertionError)


def test_sides_of_two_shapes_are_not_equal():
    with pytest.raises(CheckFailed, match=r"the sides have shapes \(3,\) and \(1, 3\)"):
        check.identity("1.1", torch.zeros(3), torch.zeros(1, 3), says="s")
    check.identity("1.1", torch.zeros(2, 3), 0.0, says="a number is compared with every entry")


@pytest.mark.parametrize(
    "claim",
    [
        lambda none: check.identity("1.1", none, none, says="s"),
        lambda none: check.identity("1.1", none, 0.0, says="s"),
        lambda none: check.at_most("1.1", none, 1.0, says="s"),
        lambda none: check.at_least("1.1", none, 1.0, says="s"),
        lambda none: check.log_det("1.1", Sinh(), none),
        lambda none: check.round_trip("1.1", Sinh(), none),
    ],
)
def test_a_claim_about_no_numbers_does_not_pass(claim):
    with pytest.raises(CheckFailed, match=r"^\(1\.1\) .*: there are no numbers to compare\.$"):
        claim(torch.zeros(0, 2))


def test_numbers_are_compared_in_double_precision():
    torch.set_default_dtype(torch.float32)
    with pytest.raises(CheckFailed):
        check.identity("1.1", 1.0, 1.0 + 1e-9, says="s")
    check.identity("1.1", 0.1 + 0.2, 0.3, says="s")


def test_values_may_require_gradients():
    parameter = torch.ones(2, requires_grad=True)
    check.identity("1.1", 2 * parameter, [2.0, 2.0], says="s")
    check.at_most("1.2", parameter, 1.0, says="s")
    check.exercise("1.3", parameter, torch.ones(2))


@pytest.mark.parametrize("stub", [None, ...])
def test_an_exercise_without_an_answer_is_no_error(stub, capsys):
    check.exercise("1.1", stub, 2.0)
    assert capsys.readouterr().out == "… exercise 1.1: not answered yet\n"


def test_a_wrong_answer_does_not_show_the_right_one():
    with pytest.raises(CheckFailed, match=r"^Exercise 1\.1: not right yet; the answer is off by 1\.$"):
        check.exercise("1.1", 13.0, 12.0)
    with pytest.raises(CheckFailed, match=r"^Exercise 1\.1: the answer has shape \(\), expected \(2,\)\.$"):
        check.exercise("1.1", 12.0, [12.0, 12.0])


# --- exercises judged by behaviour ------------------------------------------------------


def shifted(z, by):
    return z + by, by.sum(-1)


FRESH = (torch.tensor([[0.3, -1.2]], dtype=torch.float64), torch.tensor([[1.0, 2.0]], dtype=torch.float64))


def test_a_function_is_judged_by_all_that_it_gives(capsys):
    check.exercise("1.1", lambda z, by: (by + z, by[:, 0] + by[:, 1]), shifted, at=FRESH)
    assert capsys.readouterr().out == "✓ exercise 1.1: correct\n"
    for wrong in (
        lambda z, by: (z + by + 2e-10, by.sum(-1)),
        lambda z, by: (z + by, -by.sum(-1)),
        lambda z, by: (z + by * math.nan, by.sum(-1)),
    ):
        with pytest.raises(CheckFailed, match=r"^Exercise 1\.1: not right yet; the answer is off by"):
            check.exercise("1.1", wrong, shifted, at=FRESH)
    with pytest.raises(CheckFailed, match=r"has shape \(1, 2\), expected \(1, 2\) and \(1,\)\."):
        check.exercise("1.1", lambda z, by: z + by, shifted, at=FRESH)


def test_a_function_cannot_change_what_it_is_compared_at():
    """Both sides would then be compared at the changed points, or the second at others."""

    def writes(z):
        return z.mul_(0)

    point = POINT.clone()
    with pytest.raises(CheckFailed, match="not right yet"):
        check.exercise("1.1", writes, torch.square, at=point)
    assert torch.equal(point, POINT)


@pytest.mark.parametrize("expected", [None, Sinh(), lambda z: Sinh()(z)])
@pytest.mark.parametrize("wrong", ["x", "log_det", "z", "inverse_log_det"])
def test_a_layer_is_judged_by_what_it_does(wrong, expected, capsys):
    check.exercise("1.1", Sinh(), expected, at=POINT)
    assert capsys.readouterr().out == "✓ exercise 1.1: correct\n"
    with pytest.raises(
        CheckFailed,
        match=r"^Exercise 1\.1: not right yet; (its log-det|its inverse|the answer) is off by",
    ):
        check.exercise("1.1", Sinh(wrong, 0.01), expected, at=POINT)
    check.exercise("1.1", Sinh(wrong, 0.01), expected, at=POINT, tol=0.1)


def test_a_layer_that_is_not_the_one_asked_for_fails():
    """The identity has the right log-det and leads back, and is not sinh."""
    with pytest.raises(CheckFailed, match="the answer is off by"):
        check.exercise("1.1", Compose([]), Sinh(), at=POINT)


@pytest.mark.parametrize("wrong", [Sinh, 0, lambda z: None])
def test_without_an_expected_answer_only_a_layer_can_be_right(wrong):
    with pytest.raises(CheckFailed, match="the answer must be a layer"):
        check.exercise("1.1", wrong, at=POINT)


class Summed(Sinh):
    """One log-determinant for the whole batch, a likely slip."""

    def forward(self, z, context=None):
        x, log_det = super().forward(z)
        return x, log_det.sum()


@pytest.mark.parametrize("judge", [check.log_det_error, check.round_trip_error])
def test_a_log_det_is_one_number_for_each_point(judge, z):
    with pytest.raises(CheckFailed, match=re.escape("of shape (5,), and has shape ()")):
        judge(Summed(), z)


@pytest.mark.parametrize("expected", [torch.ones(2), torch.square, Sinh(), Sinh().forward])
def test_what_is_expected_is_no_answer(expected):
    with pytest.raises(CheckFailed, match="the answer is what it is compared with; find your own"):
        check.exercise("1.1", expected, expected, at=POINT)


def test_a_number_is_no_function():
    with pytest.raises(CheckFailed, match=r"the answer has shape \(\), expected \(1, 2\)"):
        check.exercise("1.1", 2.0, torch.square, at=POINT)


def test_an_answer_may_be_a_whole_number():
    check.exercise("1.1", 2, 2.0)
    check.exercise("1.1", torch.tensor([1, 2]), [1.0, 2.0])
    check.exercise("1.1", (1, 2), [1.0, 2.0])


# --- what is measured -------------------------------------------------------------------


def test_the_jacobian_is_exact_on_a_known_map(z):
    matrix = torch.tensor([[1.0, 2.0], [-3.0, 0.5]], dtype=torch.float64)
    found = check.jacobian(lambda p: (p**2) @ matrix.T, z)
    torch.testing.assert_close(found, matrix * 2 * z[:, None, :])


def test_the_jacobian_flattens_images():
    images = torch.rand(2, 1, 2, 3, dtype=torch.float64)
    found = check.jacobian(lambda p: p.flip(-1) ** 2, images)
    assert found.shape == (2, 6, 6)
    assert found[1, 0].nonzero().flatten().tolist() == [2]
    assert found[1, 0, 2] == 2 * images[1, 0, 0, 2]


def test_the_jacobian_of_no_points_is_empty():
    assert check.jacobian(lambda p: p, torch.zeros(0, 3)).shape == (0, 3, 3)


@pytest.mark.parametrize("wrong", ["log_det", "inverse_log_det"])
@pytest.mark.parametrize("size", [0.25, -0.25])
def test_the_log_det_error_is_the_size_of_the_error(z, wrong, size):
    assert check.log_det_error(Sinh(), z) < 1e-13
    assert check.log_det_error(Sinh(wrong, size), z) == pytest.approx(0.25)


@pytest.mark.parametrize("wrong", ["z", "log_det", "inverse_log_det"])
def test_the_round_trip_error_is_the_size_of_the_error(z, wrong):
    assert check.round_trip_error(Sinh(), z) < 1e-13
    assert check.round_trip_error(Sinh(wrong, 0.25), z) == pytest.approx(0.25)


def test_both_errors_pass_the_context_on(z):
    context = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    assert check.round_trip_error(Sinh(), z, context) < 1e-13
    assert check.log_det_error(Sinh(), z, context) < 1e-13
    check.log_det("1.1", Sinh(), z, context=context)
    check.round_trip("1.2", Sinh(), z, context=context)


def test_a_nan_in_one_of_many_points_is_found(z):
    z[3, 1] = math.nan
    assert math.isnan(check.log_det_error(Sinh(), z))
    assert math.isnan(check.round_trip_error(Sinh(), z))
    assert math.isnan(check.largest(z))


def test_the_integral_is_exact_for_known_densities():
    assert check.integral(lambda x: x[:, 0], [(0.0, 2.0)]) == pytest.approx(2.0, abs=1e-12)
    product = check.integral(lambda x: x[:, 0] * x[:, 1], [(0.0, 2.0), (1.0, 3.0)], n=50)
    assert product == pytest.approx(8.0, abs=1e-12)
    single = check.integral(lambda x: torch.ones_like(x[:, 0]), [(0.0, 1.0)] * 3, n=50, dtype=torch.float32)
    assert single == pytest.approx(1.0, abs=1e-6)


def test_the_integral_takes_no_gradients():
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    seen = []

    def density(x):
        seen.append((weight * x[:, 0]).requires_grad)
        return weight * x[:, 0]

    assert isinstance(check.integral(density, [(0.0, 1.0)]), float)
    assert seen == [False]


def test_the_largest_of_nothing_is_zero():
    assert check.largest(torch.zeros(0)) == 0.0
    assert check.largest([-3.0, 2.0]) == 3.0


def test_lines_hold_a_bound_and_no_digits_of_the_error(capsys, z):
    check.identity("9.9", math.pi, math.pi + 3.14159e-11, says="s")
    check.at_most("9.9", 0.123456, 1.0, says="s")
    assert not re.search(r"3141|1234", capsys.readouterr().out)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_two_sides_may_be_on_two_devices():
    check.identity("1.1", torch.ones(2, device="cuda"), torch.ones(2), says="s")
    check.exercise("1.1", torch.ones(2, device="cuda"), [1.0, 1.0])
