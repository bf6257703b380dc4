"""What assignment 3 asks, what it is worth, and how it is judged."""

import math

import torch

from tools.grade.judging import draw, log_volume, made, near, numbers, pair
from tools.grade.rubric import Probe, Rubric

rubric = Rubric(3, "Couplings, images and Glow")

# the conditioners that students' couplings are given; here and there from the same source
S = "lambda k: torch.tanh(k @ A) + 0.2"
T = "lambda k: torch.sin(k @ B) - 0.5"
STAIRS = "lambda k: torch.floor(2 * k @ A) / 4"


# --- right answers ------------------------------------------------------------------------


def coupling(z, s, t, r):
    return torch.cat([z[:, :r], z[:, r:] * s(z[:, :r]).exp() + t(z[:, :r])], 1)


def masked(z, mask, s, t):
    passing = z * mask
    return torch.where(mask, z, z * s(passing).exp() + t(passing))


def mixing(masks):
    """Layers until a chain of reachability matrices is full."""
    d, layers = masks.shape[1], 0
    reach = torch.eye(d, dtype=torch.float64)
    while not bool((reach > 0).all()):
        mask = masks[layers % len(masks)]
        step = torch.eye(d, dtype=torch.float64) + (~mask)[:, None] * mask[None].double()
        reach, layers = ((step @ reach) > 0).double(), layers + 1
    return float(layers)


def variant(student):
    """The student's numbers, drawn as the notebook draws them."""
    rng = rubric.constants(student)
    nats = round(rng.uniform(-12000, -8000), 1)
    order = rng.sample(range(7), 7)
    turns = [0, 1, 2, 3, *rng.choices(range(4), k=4)]
    rng.shuffle(turns)
    parts = [order[:1], order[1:3], order[3:5], order[5:]]
    return nats, torch.tensor([[i in parts[turn] for i in range(7)] for turn in turns])


# --- questions ----------------------------------------------------------------------------


def networks(seed, r, d, source=S):
    A, B = draw(seed, r, d - r), draw(seed + 1, r, d - r)
    return made(source, A=A), made(T, B=B)


@rubric.question("3.1", "Forward", 10, "affine_coupling")
def forward(probe: Probe) -> None:
    def at(part, d, r, seed):
        (s, s_sent), (t, t_sent) = networks(seed, r, d)
        z = draw(seed + 2, 25, d)
        want = coupling(z, s, t, r) if part == 0 else log_volume(lambda z: coupling(z, s, t, r), z)
        near(pair(probe, "affine_coupling", z, s_sent, t_sent, r)[part], want)

    probe.check(3, "x for d = 4, r = 2", lambda: at(0, 4, 2, 1))
    probe.check(4, "log-det for d = 4, r = 2, against finite differences", lambda: at(1, 4, 2, 1))
    probe.check(
        3, "both for d = 5, r = 1 and r = 4", lambda: [at(p, 5, r, 4) for p in (0, 1) for r in (1, 4)]
    )


@rubric.question("3.2", "Back", 10, "affine_coupling_inverse")
def back(probe: Probe) -> None:
    def at(part, source, seed):
        (s, s_sent), (t, t_sent) = networks(seed, 2, 5, source)
        z = draw(seed + 2, 25, 5)
        want = z if part == 0 else -s(z[:, :2]).sum(1)
        near(pair(probe, "affine_coupling_inverse", coupling(z, s, t, 2), s_sent, t_sent, 2)[part], want)

    probe.check(4, "z", lambda: at(0, S, 7))
    probe.check(4, "log-det", lambda: at(1, S, 7))
    probe.check(2, "both where s is a staircase", lambda: (at(0, STAIRS, 10), at(1, STAIRS, 10)))


@rubric.question("3.3", "Any mask", 10, "masked_coupling")
def masks(probe: Probe) -> None:
    def at(part, mask, seed):
        mask = torch.tensor(mask)
        A, B, z = draw(seed, 5, 5), draw(seed + 1, 5, 5), draw(seed + 2, 25, 5)
        (s, s_sent), (t, t_sent) = made(S, A=A), made(T, B=B)
        want = masked(z, mask, s, t) if part == 0 else log_volume(lambda z: masked(z, mask, s, t), z)
        near(pair(probe, "masked_coupling", z, mask, s_sent, t_sent)[part], want)

    alternating, one = [True, False, True, False, True], [False, False, False, True, False]
    probe.check(4, "x, a mask that alternates", lambda: at(0, alternating, 13))
    probe.check(4, "log-det, a mask that alternates", lambda: at(1, alternating, 13))
    probe.check(2, "both, a mask that keeps one entry", lambda: (at(0, one, 16), at(1, one, 16)))


@rubric.question(
    "3.4", "When does everything depend on everything?", 8, "layers_until_mixed", "mixing_layers"
)
def dependence(probe: Probe) -> None:
    examples = [
        [[1, 1, 0, 0], [0, 0, 1, 1]],
        [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 1, 1]],
        [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]],
        [[1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1]],
    ]

    def at(i):
        table = torch.tensor(examples[i]).bool()
        near(probe.ask("layers_until_mixed", table), mixing(table))

    probe.check(2, "two halves of four entries", lambda: at(0))
    probe.check(3, "three more lists of masks", lambda: [at(i) for i in (1, 2, 3)])
    probe.check(
        3, "mixing_layers", lambda: near(probe.value("mixing_layers"), mixing(variant(probe.student)[1]))
    )


rubric.written("3.5", "What linear couplings reach", 10)


@rubric.question("3.6", "Dequantisation, exactly", 10, "exact_log_mass", "uniform_bound")
def dequantisation(probe: Probe) -> None:
    wave = "lambda y: torch.sin(c * y) - 0.3 * (y - 2) ** 2 - 1"
    steep = "lambda y: -900 + 80 * torch.sin(3 * y) - 40 * y"

    def at(name, source, v, **given):
        density, sent = made(source, **given)
        u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
        values = density(v + u)
        want = torch.logsumexp(values, 0) - math.log(len(u)) if name == "exact_log_mass" else values.mean()
        near(probe.ask(name, sent, v), want, 1e-5)

    for name, says in {"exact_log_mass": "the mass of a cell", "uniform_bound": "the bound"}.items():
        probe.check(
            4, f"{says}, at v = 0 and 3", lambda name=name: [at(name, wave, v, c=2.7) for v in (0, 3)]
        )
    says = "both where the density is far below the smallest number"
    probe.check(2, says, lambda: [at(name, steep, 1) for name in ("exact_log_mass", "uniform_bound")])


@rubric.question("3.7", "Bits per dimension", 6, "bits_of_model")
def bits(probe: Probe) -> None:
    want = variant(probe.student)[0] / (3072 * math.log(2)) + 8
    probe.check(6, "bits_of_model", lambda: near(probe.value("bits_of_model"), want, 1e-4))


@rubric.question("3.8", "Squeeze", 6, "squeeze", "unsqueeze")
def squeezed(probe: Probe) -> None:
    x = draw(19, 2, 3, 4, 6)
    y = torch.stack([x[:, c, i::2, j::2] for c in range(3) for i in (0, 1) for j in (0, 1)], 1)
    probe.check(3, "squeeze", lambda: near(probe.ask("squeeze", x), y))
    probe.check(3, "unsqueeze", lambda: near(probe.ask("unsqueeze", y), x))


@rubric.question("3.9", "Invertible 1×1 convolution", 10, "channel_mix")
def convolution(probe: Probe) -> None:
    z, W = draw(20, 3, 3, 2, 4), draw(21, 3, 3)
    W[0] *= -torch.linalg.det(W).sign()

    def mix(flat):
        return torch.einsum("oc,bchw->bohw", W, flat.reshape(-1, 3, 2, 4)).flatten(1)

    want = mix(z.flatten(1)).reshape(z.shape)
    probe.check(4, "x", lambda: near(pair(probe, "channel_mix", z, W)[0], want))
    says = "log-det of the whole image, against finite differences; det W < 0"
    volume = log_volume(mix, z.flatten(1))
    probe.check(6, says, lambda: near(pair(probe, "channel_mix", z, W)[1], volume, 1e-5))


@rubric.question("3.10", "Actnorm", 10, "actnorm_start", "actnorm")
def normalisation(probe: Probe) -> None:
    z = draw(22, 4, 3, 2, 3) * torch.tensor([0.1, 1.0, 7.0]).double()[:, None, None] + 5

    def started(which):
        log_scale, bias = (numbers(part, (3,)) for part in pair(probe, "actnorm_start", z))
        x = (z * log_scale.exp()[:, None, None] + bias[:, None, None]).transpose(0, 1).flatten(1)
        if which == "mean":
            near(x.mean(1), torch.zeros(3))
        else:
            near(x.var(1, correction=0), torch.ones(3))

    probe.check(2, "the start gives mean 0", lambda: started("mean"))
    probe.check(3, "the start gives variance 1", lambda: started("variance"))
    log_scale, bias = draw(23, 3), draw(24, 3)
    want = z * log_scale.exp()[:, None, None] + bias[:, None, None]
    probe.check(2, "x for any parameters", lambda: near(pair(probe, "actnorm", z, log_scale, bias)[0], want))
    volume = (6 * log_scale.sum()).expand(4)
    probe.check(3, "log-det", lambda: near(pair(probe, "actnorm", z, log_scale, bias)[1], volume))


rubric.written("3.11", "The split prior and the temperature", 10)
