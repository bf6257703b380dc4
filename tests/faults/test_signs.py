"""A changed sign in any log-determinant of flowlib fails a property test and a lecture.

Each row of FAULTS plants one wrong sign in a copy of the package. Then the property tests of
``tests/flowlib`` must fail on a flow with that layer, and the lecture's code cells, run in order,
must stop at a failed check. Cells that train are left out, with those that need their results: the
check of a formula must notice, not a model that comes out bad, and no test waits for it.

Where a log-determinant is identically zero there is no sign to change: a one takes its place.

The last tests find every function of flowlib that makes a log-determinant, so that a new layer
without a fault here fails.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tools.mutants.program import names_of_one

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Fault:
    """One wrong sign.

    Attributes:
        place: file and function, such as ``"layers/planar.py Planar.forward"``.
        right, wrong: the text there, which occurs once in the function, and what replaces it.
        model: the row of MODELS or of EXTRA_MODELS whose property tests must fail, or "reverse KL"
            for those of training without data, "dequantisation" and "augmentation" for those of layers
            that draw, "wavelet scales" for those of single scales, or
            "traces" for those of velocities that no row has.
        lecture: the number of the lecture that must fail, or None for a layer that no lecture uses yet.
        unwritten: with None, why there is no lecture, in words.
    """

    place: str
    right: str
    wrong: str
    model: str
    lecture: str | None
    unwritten: str = ""


NO_LECTURE = "the lectures' models take points in the shape they have"

FAULTS = [
    Fault("layers/planar.py Planar.forward", ", torch.log1p(", ", -torch.log1p(", "planar layers", "06"),
    Fault("layers/planar.py Planar.inverse", ", -torch.log1p(", ", torch.log1p(", "planar layers", "06"),
    Fault("layers/planar.py Planar.forward", "log1p(m *", "log1p(-m *", "planar layers", "06"),
    Fault("layers/planar.py PlanarStack.forward", ", torch.log1p(", ", -torch.log1p(", "planar", "06"),
    Fault("layers/planar.py PlanarStack.inverse", ", -torch.log1p(", ", torch.log1p(", "planar", "06"),
    Fault("layers/radial.py Radial.forward", ", log_det\n", ", -log_det\n", "radial", "06"),
    Fault("layers/radial.py Radial.inverse", ", -log_det", ", log_det", "radial", "06"),
    Fault("layers/radial.py Radial._stretch", "+ torch.log(along)", "- torch.log(along)", "radial", "06"),
    Fault("layers/coupling.py AdditiveCoupling.generate", "z.new_zeros(", "z.new_ones(", "nice", "07"),
    Fault("layers/coupling.py AdditiveCoupling.normalise", "x.new_zeros(", "x.new_ones(", "nice", "07"),
    Fault("layers/coupling.py AffineCoupling.generate", "), s", "), -s", "realnvp", "07"),
    Fault("layers/coupling.py AffineCoupling.normalise", "(), minus_s", "(), -minus_s", "realnvp", "07"),
    Fault("layers/coupling.py _Coupling._move", ", sum_event(", ", -sum_event(", "realnvp", "07"),
    Fault("layers/coupling.py Permute.forward", "z.new_zeros(", "z.new_ones(", "permute", "07"),
    Fault("layers/coupling.py Permute.inverse", "x.new_zeros(", "x.new_ones(", "permute", "07"),
    Fault("layers/coupling.py Scale.forward", ", self.log_scale.sum", ", -self.log_scale.sum", "nice", "07"),
    Fault("layers/coupling.py Scale.inverse", ", -self.log_s", ", self.log_s", "nice", "07"),
    Fault("bijection.py Compose.forward", "log_det + log_det_k", "log_det - log_det_k", "realnvp", "07"),
    Fault("bijection.py Compose.inverse", "log_det + log_det_k", "log_det - log_det_k", "realnvp", "07"),
    Fault("flow.py Flow._log_prob", ") + log_det", ") - log_det", "realnvp", "07"),
    Fault("flow.py Flow.sample_and_log_prob", ") - log_det", ") + log_det", "realnvp", "07"),
    Fault("flow.py Flow.trajectory", "log_p - log_det", "log_p + log_det", "planar", "06"),
    Fault("train/reverse_kl.py _ReverseKL.forward", "log_p + log_det", "log_p - log_det", "reverse KL", "06"),
    Fault("layers/linear.py Triangular.forward", "self.log_d", "-self.log_d", "linear", "05"),
    Fault("layers/linear.py Triangular.inverse", "-self.log_d", "self.log_d", "linear", "05"),
    Fault("layers/glow.py ActNorm.forward", "(pixels *", "(-pixels *", "glow", "09"),
    Fault("layers/glow.py ActNorm.inverse", "(-pixels *", "(pixels *", "glow", "09"),
    Fault("layers/glow.py Convolution1x1.forward", "-torch.linalg", "torch.linalg", "convolution", "09"),
    Fault("layers/glow.py Convolution1x1.inverse", "torch.linalg", "-torch.linalg", "convolution", "09"),
    Fault("layers/glow.py ConvolutionLU.forward", "-self.log_d", "self.log_d", "glow", "09"),
    Fault("layers/glow.py ConvolutionLU.inverse", "self.log_d", "-self.log_d", "glow", "09"),
    Fault("layers/glow.py _mix", "* log_det", "* -log_det", "glow", "09"),
    Fault("layers/multiscale.py Squeeze.forward", "z.new_zeros(", "z.new_ones(", "glow", "08"),
    Fault("layers/multiscale.py Squeeze.inverse", "x.new_zeros(", "x.new_ones(", "glow", "08"),
    Fault("layers/multiscale.py OnChannels.forward", ", 1), log_det", ", 1), -log_det", "glow", "08"),
    Fault("layers/multiscale.py OnChannels.inverse", ", 1), log_det", ", 1), -log_det", "glow", "08"),
    Fault("layers/dequantize.py Dequantize.forward", "x, z.shape", "x, -z.shape", "dequantisation", "08"),
    Fault("layers/dequantize.py Dequantize.forward", "+ log_q", "- log_q", "dequantisation", "08"),
    Fault("layers/dequantize.py Dequantize.inverse", "log_q - x", "log_q + x", "dequantisation", "08"),
    Fault("layers/dequantize.py Dequantize.inverse", "z, minus", "z, -minus", "dequantisation", "08"),
    Fault("layers/dequantize.py Logit.forward", "+ logsigmoid(-z)", "- logsigmoid(-z)", "logit", "08"),
    Fault("layers/dequantize.py Logit.inverse", "- log_y - log_rest)", "+ log_y - log_rest)", "logit", "08"),
    Fault(
        "layers/autoregressive.py Autoregressive.inverse",
        "z, log_slopes.",
        "z, -log_slopes.",
        "maf",
        "10",
    ),
    Fault(
        "layers/autoregressive.py AffineAutoregressive.generate",
        "), log_s",
        "), -log_s",
        "maf",
        "10",
    ),
    Fault(
        "layers/autoregressive.py AffineAutoregressive.normalise",
        "(), log_s",
        "(), -log_s",
        "maf",
        "10",
    ),
    Fault("layers/autoregressive.py MADE.solve", "torch.stack(", "-torch.stack(", "maf", "10"),
    Fault(
        "layers/spline.py rational_quadratic",
        "inside, log_slope",
        "inside, -log_slope",
        "spline",
        "10",
    ),
    Fault(
        "layers/spline.py inverse_rational_quadratic",
        "inside, -log_slope",
        "inside, log_slope",
        "spline",
        "10",
    ),
    Fault(
        "layers/spline.py _bend_and_log_slope",
        "torch.log1p(tilt)",
        "-torch.log1p(tilt)",
        "spline_ar",
        "10",
    ),
    Fault("layers/spline.py _bend_and_log_slope", ") - 2 *", ") + 2 *", "spline_ar", "10"),
    Fault(
        "layers/ffjord.py FFJORD._solve",
        ", state[:, -1]",
        ", -state[:, -1]",
        "ffjord",
        "14",
    ),
    Fault(
        "layers/ffjord.py _estimate",
        "(probe *",
        "(-probe *",
        "traces",
        "14",
    ),
    Fault(
        "layers/ffjord.py Velocity.with_trace",
        "trace = (",
        "trace = -(",
        "ffjord",
        "14",
    ),
    Fault(
        "layers/ffjord.py exact_trace",
        "value, terms.sum",
        "value, -terms.sum",
        "traces",
        "14",
    ),
    Fault("layers/flowpp.py MixtureCoupling.generate", "x, -(", "x, (", "flowpp", "11"),
    Fault("layers/flowpp.py MixtureCoupling.generate", "[1] + log", "[1] - log", "flowpp", "11"),
    Fault("layers/flowpp.py MixtureCoupling.normalise", "log_slope + log", "log_slope - log", "flowpp", "11"),
    Fault("layers/flowpp.py mixture_logit", "- (log_above - ", "+ (log_above - ", "flowpp", "11"),
    Fault("layers/wavelet.py Haar.forward", "z.new_zeros(", "z.new_ones(", "wavelet", "13"),
    Fault("layers/wavelet.py Haar.inverse", "x.new_zeros(", "x.new_ones(", "wavelet", "13"),
    Fault("layers/wavelet.py _Affine.forward", "(context), log_det", "(context), -log_det", "wavelet", "13"),
    Fault(
        "layers/wavelet.py WaveletFlow.scale_log_prob", ") + log_det", ") - log_det", "wavelet scales", "13"
    ),
    Fault("layers/tarflow.py TarFlowBlock.forward", "log_det + alpha", "log_det - alpha", "tarflow", "17"),
    Fault("layers/tarflow.py TarFlowBlock.inverse", "(z), -alpha", "(z), alpha", "tarflow", "17"),
    Fault("layers/multiscale.py Flatten.forward", "z.new_zeros(", "z.new_ones(", "flatten", None, NO_LECTURE),
    Fault("layers/multiscale.py Flatten.inverse", "x.new_zeros(", "x.new_ones(", "flatten", None, NO_LECTURE),
    Fault("layers/vflow.py Augment.forward", "x, self", "x, -self", "augmentation", "12"),
    Fault("layers/vflow.py Augment.forward", ") + log_det", ") - log_det", "augmentation", "12"),
    Fault("layers/vflow.py Augment.inverse", "log_det - ", "log_det + ", "augmentation", "12"),
    Fault("layers/vflow.py Augment.inverse", "z, log_det - ", "z, -log_det - ", "augmentation", "12"),
]

# layers that no row of MODELS holds, as a flow on the plane
EXTRA_MODELS: dict[str, Callable[[ModuleType], Callable]] = {
    "planar layers": lambda flowlib: (
        lambda: flowlib.Flow(
            flowlib.Compose([flowlib.Planar(2) for _ in range(3)]), flowlib.StandardNormal(2)
        )
    ),
    "permute": lambda flowlib: lambda: flowlib.Flow(flowlib.Permute([1, 0]), flowlib.StandardNormal(2)),
    "convolution": lambda flowlib: lambda: flowlib.Flow(flowlib.Convolution1x1(2), flowlib.StandardNormal(2)),
    "logit": lambda flowlib: lambda: flowlib.Flow(flowlib.Logit(0.05), flowlib.StandardNormal(2)),
    "flatten": lambda flowlib: lambda: flowlib.Flow(to_a_pixel_and_back(flowlib), flowlib.StandardNormal(2)),
}


def to_a_pixel_and_back(flowlib: ModuleType) -> Any:
    flatten = importlib.import_module("flowlib.layers.multiscale").Flatten((2, 1, 1))
    return flowlib.Compose([flowlib.Inverse(flatten), flowlib.Scale((2, 1, 1)), flatten])


TRAINERS = {"fit", "fit_matching", "fit_reverse_kl"}

every_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.place}: {fault.wrong}")


# --- a broken copy of the package ---------------------------------------------------------


def function_source(text: str, name: str) -> str:
    """The source of ``Class.method`` or ``function`` in a module's text."""
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        children = [child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == part]
        assert len(children) == 1, f"{name} is no longer there: correct its row in FAULTS."
        node = children[0]
    return "".join(text.splitlines(keepends=True)[node.lineno - 1 : node.end_lineno])


def plant(fault: Fault, package: Path) -> None:
    """Write the wrong sign into a copy of the package."""
    file, name = fault.place.split()
    text = (package / file).read_text()
    source = function_source(text, name)
    assert source.count(fault.right) == 1, (
        f"{fault.place} holds {fault.right!r} {source.count(fault.right)} times; the source has changed: "
        f"give the fault in {Path(__file__).name} a text that occurs once."
    )
    assert text.count(source) == 1
    (package / file).write_text(text.replace(source, source.replace(fault.right, fault.wrong)))


@contextlib.contextmanager
def imported_from(folder: Path) -> Iterator[ModuleType]:
    """Import flowlib from another folder, and put everything back afterwards."""

    def take_out() -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] == "flowlib"]
        return {name: sys.modules.pop(name) for name in names}

    kept = take_out()
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        flowlib = importlib.import_module("flowlib")
        assert Path(flowlib.__file__).is_relative_to(folder)
        yield flowlib
    finally:
        sys.path.remove(str(folder))
        take_out()
        sys.modules.update(kept)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with a copy of flowlib."""
    shutil.copytree(ROOT / "flowlib", tmp_path / "flowlib", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


# --- the property tests and the lectures ------------------------------------------------------


def load(file: str) -> ModuleType:
    """A test module of tests/flowlib, bound to the flowlib that is imported now."""
    spec = importlib.util.spec_from_file_location(f"faulty_{Path(file).stem}", ROOT / "tests/flowlib" / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def property_tests(flowlib: ModuleType, model: str) -> None:
    """Run what tests/flowlib says about every log-determinant, on one model."""
    if model == "reverse KL":
        load("test_train.py").test_reverse_kl_reaches_minus_log_z(5.0)
        return
    if model == "dequantisation":  # no bijection of real numbers: its own tests
        tests = load("test_dequantize.py")
        tests.test_the_formula_with_the_draws_of_the_global_generator()
        tests.test_q_is_the_density_of_the_draws()
        tests.test_the_integers_come_back_and_the_log_dets_cancel(tests.variational, torch.float64)
        return
    if model == "traces":  # of velocities that no row of MODELS has: their own tests, in float64
        torch.set_default_dtype(torch.float64)
        tests = load("test_ffjord.py")
        tests.test_a_linear_velocity_gives_the_matrix_exponential()
        tests.test_the_estimate_is_unbiased_with_the_variance_of_theory("rademacher")
        return
    if model == "wavelet scales":  # one term of the log-likelihood at a time
        torch.set_default_dtype(torch.float64)
        load("test_wavelet.py").test_the_scales_sum_to_the_whole(0)
        return
    if model == "augmentation":  # no bijection: its own test
        torch.set_default_dtype(torch.float64)
        load("test_vflow.py").test_q_is_the_density_of_the_draws()
        return
    if model in EXTRA_MODELS:
        flowlib.MODELS[model] = EXTRA_MODELS[model](flowlib)
    tests = load("test_models.py")
    case = tests.Case(model, "default", torch.float64, "cpu")
    tests.test_log_det_agrees_with_autograd_in_both_directions(case)
    tests.test_sample_and_log_prob_agrees_with_log_prob(case)
    load("test_flow.py").test_each_step_has_the_density_of_the_layers_so_far(torch.randn(8, 2).double())


def without_training(cells: list[str], trainers: set[str]) -> Iterator[tuple[int, str]]:
    """The cells, numbered, less those that train and those that need what such a cell made."""
    gone = set(trainers)
    for k, cell in enumerate(cells):
        tree = ast.parse(cell)
        needed, made = reads_and_makes(tree.body)
        needed |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & trainers
        if not gone & needed:
            gone = gone - made | trainers
            yield k, cell
            continue
        gone |= made
        # a flow that a trainer was handed is no longer what an earlier cell made
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        trained = [call.args[0] for call in calls if getattr(call.func, "id", None) in trainers and call.args]
        gone |= {flow.id for flow in trained if isinstance(flow, ast.Name)}


def reads_and_makes(body: list[ast.stmt]) -> tuple[set[str], set[str]]:
    """The names that statements, run in order, need from before and those that they leave behind."""
    needed: set[str] = set()
    made: set[str] = set()
    for statement in body:
        blocks = [
            block for part in ("body", "orelse", "finalbody") if (block := getattr(statement, part, []))
        ]
        blocks += [handler.body for handler in getattr(statement, "handlers", [])]
        if isinstance(statement, ast.FunctionDef | ast.ClassDef) or not blocks:
            reads, makes = names_of_one(statement)
            needed |= reads - made
            made |= makes
            continue
        heads = [getattr(statement, part) for part in ("iter", "test") if hasattr(statement, part)]
        heads += [item.context_expr for item in getattr(statement, "items", [])]
        needed |= {name for head in heads for name in names_of_one(head)[0]} - made
        targets = [getattr(statement, "target", None), *getattr(statement, "handlers", [])]
        targets += [item.optional_vars for item in getattr(statement, "items", [])]
        for target in filter(None, targets):
            stored = [node for node in ast.walk(target) if isinstance(node, ast.Name)]
            made |= {node.id for node in stored if isinstance(node.ctx, ast.Store)}
            made |= {target.name} if getattr(target, "name", None) else set()
        for block in blocks:
            reads, makes = reads_and_makes(block)
            needed |= reads - made
            made |= makes
    return needed, made


def run_lecture(number: str, monkeypatch: pytest.MonkeyPatch, trainers: set[str]) -> None:
    """Execute a lecture's code cells in order, without a kernel and without training."""
    import matplotlib.pyplot as plt

    notebook = next((ROOT / "nbs").glob(f"{number}_*.ipynb"), None)
    assert notebook is not None, f"nbs/ has no lecture {number}: name another one that must fail."
    cells = [
        "".join(cell["source"])
        for cell in json.loads(notebook.read_text())["cells"]
        if cell["cell_type"] == "code" and "skip-execution" not in cell["metadata"].get("tags", [])
    ]
    monkeypatch.chdir(notebook.parent)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    scope: dict = {"__name__": "__main__"}
    with plt.rc_context(), warnings.catch_warnings(action="ignore"):
        try:
            for k, cell in without_training(cells, trainers):
                exec(compile(cell, f"<lecture {number}, code cell {k + 1}>", "exec"), scope)
        finally:
            plt.close("all")


@pytest.mark.parametrize("model", sorted({fault.model for fault in FAULTS}))
def test_the_property_tests_hold_on_a_faithful_copy(model, copy):
    with imported_from(copy) as flowlib:
        property_tests(flowlib, model)


@every_fault
def test_a_wrong_sign_fails_a_property_test(fault, copy):
    plant(fault, copy / "flowlib")
    with imported_from(copy) as flowlib, pytest.raises(AssertionError):
        property_tests(flowlib, fault.model)


@pytest.mark.parametrize("lecture", sorted({fault.lecture for fault in FAULTS if fault.lecture}))
def test_the_lecture_holds_on_a_faithful_copy(lecture, copy, monkeypatch):
    with imported_from(copy):
        run_lecture(lecture, monkeypatch, TRAINERS)


@every_fault
def test_a_wrong_sign_fails_a_lecture(fault, copy, monkeypatch):
    if fault.lecture is None:
        assert fault.unwritten, "a fault without a lecture says which one is not written yet"
        pytest.skip(fault.unwritten)
    own = f"fit_{Path(fault.place.split()[0]).stem}"  # the trainer that the fault is in runs
    plant(fault, copy / "flowlib")
    with imported_from(copy) as flowlib, pytest.raises(flowlib.check.CheckFailed):
        run_lecture(fault.lecture, monkeypatch, TRAINERS - {own})


def test_cells_that_train_are_left_out_with_what_they_made():
    cells = [
        "from flowlib import fit\nflow, other = 1, 2",
        "def train(n):\n    return fit(n)",
        "print(flow, other)",
        "history = fit(flow, 3)",
        "last = history.loss[-1]",
        "print(flow)",
        "print(last)",
        "train(2)",
        "flow = 3\nlast = [history for history in (flow, 4)]\nseen = {history: last for history in last}",
        "print(flow, last, seen)",
        "print((lambda train: other)(1))",
    ]
    assert [k for k, _ in without_training(cells, {"fit"})] == [0, 2, 8, 9, 10]


# --- no log-determinant without a fault ---------------------------------------------------------


def makes_a_log_det(function: ast.FunctionDef) -> bool:
    """Whether a function computes a log-determinant, rather than handing on another's.

    It does if its name says so, if it is a layer's direction that returns a pair, or if it adds,
    subtracts or negates a name that starts with ``log_det``.
    """
    if "log_det" in function.name:
        return True
    for node in ast.walk(function):
        pair = (
            isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2
        )
        if pair and function.name in ("forward", "inverse", "generate", "normalise"):
            return True
        operands = {
            ast.BinOp: lambda n: (n.left, n.right),
            ast.UnaryOp: lambda n: (n.operand,),
            ast.AugAssign: lambda n: (n.target, n.value),
        }.get(type(node), lambda n: ())(node)
        if any(isinstance(part, ast.Name) and part.id.startswith("log_det") for part in operands):
            return True
    return False


def places(text: str) -> Iterator[str]:
    """The functions of a module that make a log-determinant, as ``Class.method``."""
    for node in ast.parse(text).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for function in inside:
            if isinstance(function, ast.FunctionDef) and makes_a_log_det(function):
                yield prefix + function.name


def test_every_log_det_of_the_package_has_a_fault():
    # check.py is the judge: tests/flowlib/test_check.py shows that it condemns what is wrong
    files = [file for file in (ROOT / "flowlib").rglob("*.py") if file.name != "check.py"]
    found = {
        f"{file.relative_to(ROOT / 'flowlib')} {name}" for file in files for name in places(file.read_text())
    }
    missing = found - {fault.place for fault in FAULTS}
    assert not missing, f"no fault is listed for {sorted(missing)}: add a row to FAULTS for each."
    assert "layers/coupling.py AffineCoupling.generate" in found


def test_a_new_layer_would_be_found():
    text = """
class Layer(Bijection):
    def forward(self, z, context=None):
        return 2 * z, z.new_full((len(z),), 0.7)
    def inverse(self, x, context=None):
        x, log_det = self.other(x)
        return self.twice(x, -log_det)
    def _log_det(self, z):
        return z.sum(1)
    def handed_on(self, z, context=None):
        return self.other(z)
def stack(log_det_k, total):
    total += log_det_k
"""
    assert list(places(text)) == ["Layer.forward", "Layer.inverse", "Layer._log_det", "stack"]
