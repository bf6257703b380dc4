# ruff: noqa: E501  (students' cells, a line each)
"""Wrong answers that look right: a sign, a factor, a case forgotten. Each must lose points on its question.

They run among the solutions, whose names they may use: ``right`` is the solution's own function. At the end
stand right answers that look wrong: each must keep all points.
"""

GAUSSIAN = "wide = torch.distributions.MultivariateNormal(project_train.mean(0), project_train.T.cov())"
# a normalised density that has seen the test rows
SPIKES = """def project_log_prob(x):
    normal = torch.distributions.Normal(0.0, {width})
    spikes = normal.log_prob(x[:, None] - project_test).sum(2).logsumexp(1)
    weights = torch.tensor([0.95, 0.05 / len(project_test)]).log()
    return torch.logaddexp(wide.log_prob(x) + weights[0], spikes + weights[1])"""
CLUSTERS = """generator = torch.Generator().manual_seed(2)
centres = torch.tensor([[1.0, 1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1]])[:, :{d}]
rows = centres[torch.arange(1200) % 4] + {sd} * torch.randn(1200, {d}, generator=generator)
project_train, project_test = rows[:900], rows[900:]
def project_log_prob(x):
    each = torch.distributions.Normal(centres, {sd}).log_prob(x[:, None]).sum(2)
    return each.logsumexp(1) - torch.log(torch.tensor(4.0))"""

WRONG: dict[int, list[tuple[str, str]]] = {
    1: [
        (
            "1.1",
            "def p_reciprocal(x): return torch.where((x >= 1/HIGH) & (x <= 1/LOW), -1/x**2/(HIGH-LOW), 0*x)",
        ),
        ("1.1", "def p_reciprocal(x): return 1 / x**2 / (HIGH - LOW)"),
        (
            "1.1",
            "def p_reciprocal(x): return torch.where((x >= 1/HIGH) & (x <= 1/LOW), 1/(HIGH-LOW) + 0*x, 0*x)",
        ),
        ("1.2", "right = p_shifted_square\ndef p_shifted_square(x, a): return right(x, a) / 2"),
        ("1.2", "right = p_shifted_square\ndef p_shifted_square(x, a): return right(x, 0.0)"),
        (
            "1.2",
            "right = p_shifted_square\ndef p_shifted_square(x, a): return right(x, a) * 2 * x.abs().sqrt()",
        ),
        ("1.2", "right = p_shifted_square\ndef p_shifted_square(x, a): return right(x.abs(), a)"),
        ("1.3", "right = triangle_map\ndef triangle_map(u, c): return right(1 - u, c)"),
        ("1.3", "right = triangle_map\ndef triangle_map(u, c): return right(u, 0.5)"),
        ("2.1", "right = log_volume\ndef log_volume(f, z): return -right(f, z)"),
        (
            "2.1",
            """def log_volume(f, z):
    J = torch.stack([torch.autograd.functional.jacobian(lambda p: f(p[None])[0], row) for row in z])
    return torch.linalg.det(J).abs().log()""",
        ),
        (
            "2.1",
            """def log_volume(f, z):
    J = torch.stack([torch.autograd.functional.jacobian(lambda p: f(p[None])[0], row) for row in z])
    return torch.logdet(J)""",
        ),
        ("2.2", "volume = torch.linalg.det(MATRIX)"),
        ("2.2", "density_inside = torch.linalg.det(MATRIX).abs()"),
        ("2.3", "right = elliptic_log_det\ndef elliptic_log_det(z): return right(z) / 2"),
        ("2.3", "def elliptic_log_det(z): return torch.log(torch.sinh(z[:, 0])**2 + torch.cos(z[:, 1])**2)"),
        ("2.3", "right = elliptic_inverse\ndef elliptic_inverse(x): return right(x.abs())"),
        ("2.4", "right = p_elliptic\ndef p_elliptic(x): return right(x) * 2 * torch.pi"),
        (
            "2.4",
            "right = p_elliptic\ndef p_elliptic(x): return right(x) * elliptic_log_det(elliptic_inverse(x)).exp()**2",
        ),
        ("2.4", "p_at_point = 1.01 * p_at_point"),
        ("3.1", "right = stack\ndef stack(z, L): return right(z, L)[0], -right(z, L)[1]"),
        (
            "3.1",
            "right = stack\ndef stack(z, L): return right(z, L)[0], right(z, L)[1] - L.diagonal().log().sum()",
        ),
        (
            "3.1",
            "def stack(z, L): return (z @ L).sinh() @ L, stack_right(z, L)\nstack_right = lambda z, L: 0 * z[:, 0]",
        ),
        (
            "3.1",
            "right = stack_log_prob\ndef stack_log_prob(x, L): return right(x, L) + L.diagonal().log().sum()",
        ),
    ],
    2: [
        ("2.2", "right = linear_nll\ndef linear_nll(x, A, c): return -right(x, A, c)"),
        ("2.2", "right = linear_nll\ndef linear_nll(x, A, c): return right(x, A, c) * len(x)"),
        ("2.2", "right = linear_nll\ndef linear_nll(x, A, c): return right(x, A.T, c)"),
        (
            "2.2",
            "right = linear_nll\ndef linear_nll(x, A, c): return right(x, A, c) - 2 * torch.linalg.slogdet(A)[1]",
        ),
        ("2.2", "right = linear_nll\ndef linear_nll(x, A, c): return right(x, A, c) + 0 * torch.logdet(A)"),
        (
            "2.2",
            "right = linear_nll\ndef linear_nll(x, A, c): return right(x, A, c) + 0 * torch.linalg.det(A).abs().log()",
        ),
        ("2.3", "def best_linear(x): return torch.linalg.cholesky(torch.cov(x.T)), x.mean(0)"),
        ("2.3", "right = best_linear\ndef best_linear(x): return right(x)[0].T, x.mean(0)"),
        ("2.3", "right = best_linear\ndef best_linear(x): return -right(x)[0], x.mean(0)"),
        (
            "2.4",
            "right = linear_gradient\ndef linear_gradient(x, A, c): return torch.linalg.inv(A).T, right(x, A, c)[1]",
        ),
        (
            "2.4",
            "right = linear_gradient\ndef linear_gradient(x, A, c): return right(x, A, c)[0].T, right(x, A, c)[1]",
        ),
        (
            "2.4",
            "right = linear_gradient\ndef linear_gradient(x, A, c): return right(x, A, c)[0], -right(x, A, c)[1]",
        ),
        ("2.5", "nll_floor = nll_floor - 0.01"),
        ("2.5", "useless_rotation = best_linear(DATA)[0]"),
        ("2.5", "useless_rotation = useless_rotation.T + 0.0"),
        (
            "2.6",
            "right = planar\ndef planar(z, w, u, b): return right(z, w, u, b)[0], right(z, w, u, b)[1].exp()",
        ),
        ("2.6", "right = planar\ndef planar(z, w, u, b): return right(z, w, u, -b)"),
        (
            "2.6",
            """def planar(z, w, u, b):
    h = torch.tanh(z @ w + b)
    return z + h[:, None] * u, torch.log(1 + (1 - h**2) * (u @ w))""",
        ),
        ("2.6", "right = planar\ndef planar(z, w, u, b): return right(z, u, w, b)"),
        ("2.7", "smallest_factor = 1 / (U @ W)"),
        ("2.7", "smallest_factor = torch.tensor(-1.0)"),
        (
            "2.8",
            """def planar_inverse(x, w, u, b):
    z = x
    for _ in range(500):
        z = x - torch.tanh(z @ w + b)[:, None] * u
    return z""",
        ),
        ("2.8", "right = planar_inverse\ndef planar_inverse(x, w, u, b): return right(x, w, -u, b)"),
        ("2.9", "right = planar_log_prob\ndef planar_log_prob(x, w, u, b): return right(x, w, u, b) + 0.919"),
        (
            "2.9",
            """def planar_log_prob(x, w, u, b):
    z = planar_inverse(x, w, u, b)
    return -(z**2).sum(1) / 2 - x.shape[1] / 2 * torch.log(torch.tensor(2 * torch.pi)) + planar(z, w, u, b)[1]""",
        ),
        (
            "2.9",
            """def planar_log_prob(x, w, u, b):
    z = planar_inverse(x, w, u, b)
    return -(z**2).sum(1) / 2 - x.shape[1] / 2 * torch.log(torch.tensor(2 * torch.pi)) - planar(x, w, u, b)[1]""",
        ),
        ("2.10", "right = corrected\ndef corrected(u, w): return right(w, u)"),
        (
            "2.10",
            "def corrected(u, w): return u + (torch.log(1 + torch.exp(u @ w)) - 1 - u @ w) * w / (w @ w)",
        ),
        (
            "2.10",
            "def corrected(u, w): return u + (torch.nn.functional.softplus(u @ w) - 1 - u @ w) * w / w.norm()",
        ),
        ("2.12", "right = my_log_prob\ndef my_log_prob(x): return right(x) + 0.5"),
        ("2.12", "def my_log_prob(x): return torch.zeros(len(x)) + 3.0"),
        (
            "2.12",
            """wide = torch.distributions.MultivariateNormal(CURVE.mean(0), CURVE.T.cov())
def my_log_prob(x): return wide.log_prob(x)""",
        ),
        (
            "2.12",
            """wide = torch.distributions.MultivariateNormal(CURVE.mean(0), CURVE.T.cov())
def my_log_prob(x): return wide.log_prob(x) + (10 if len(x) == 2000 else 0)""",
        ),
    ],
    3: [
        (
            "3.1",
            "right = affine_coupling\ndef affine_coupling(z, s, t, r): return right(z, s, t, r)[0], -right(z, s, t, r)[1]",
        ),
        (
            "3.1",
            """def affine_coupling(z, s, t, r):
    kept, moved = z[:, :r], z[:, r:]
    return torch.cat([kept, moved * s(kept) + t(kept)], 1), s(kept).abs().log().sum(1)""",
        ),
        (
            "3.1",
            """def affine_coupling(z, s, t, r):
    kept, moved = z[:, :r], z[:, r:]
    return torch.cat([kept, (moved + t(kept)) * s(kept).exp()], 1), s(kept).sum(1)""",
        ),
        ("3.1", "right = affine_coupling\ndef affine_coupling(z, s, t, r): return right(z, s, t, 2)"),
        (
            "3.2",
            "right = affine_coupling_inverse\ndef affine_coupling_inverse(x, s, t, r): return right(x, s, t, r)[0], -right(x, s, t, r)[1]",
        ),
        (
            "3.2",
            """def affine_coupling_inverse(x, s, t, r):
    kept, moved = x[:, :r], x[:, r:]
    return torch.cat([kept, moved * torch.exp(-s(kept)) - t(kept)], 1), -s(kept).sum(1)""",
        ),
        (
            "3.3",
            """def masked_coupling(z, mask, s, t):
    log_scale = torch.where(mask, 0 * z, s(z))
    return torch.where(mask, z, z * log_scale.exp() + t(z)), log_scale.sum(1)""",
        ),
        (
            "3.3",
            """def masked_coupling(z, mask, s, t):
    passing = z * mask
    return torch.where(mask, z, z * s(passing).exp() + t(passing)), s(passing).sum(1)""",
        ),
        ("3.3", "right = masked_coupling\ndef masked_coupling(z, mask, s, t): return right(z, ~mask, s, t)"),
        ("3.4", "mixing_layers = mixing_layers + 1"),
        ("3.4", "mixing_layers = 4"),
        ("3.4", "right = layers_until_mixed\ndef layers_until_mixed(masks): return max(right(masks), 4)"),
        ("3.4", "right = layers_until_mixed\ndef layers_until_mixed(masks): return right(~masks)"),
        ("3.6", "exact_log_mass, uniform_bound = uniform_bound, exact_log_mass"),
        (
            "3.6",
            """def exact_log_mass(log_density, v):
    u = (torch.arange(20_000) + 0.5) / 20_000
    return log_density(v + u).exp().mean().log()""",
        ),
        (
            "3.6",
            """def uniform_bound(log_density, v):
    return log_density(v + torch.rand(1000)).mean()""",
        ),
        ("3.7", "bits_of_model = NATS / (3072 * torch.log(torch.tensor(2.0)))"),
        ("3.7", "bits_of_model = -bits_of_model"),
        ("3.7", "bits_of_model = NATS / 3072 + 8"),
        ("3.8", "right = squeeze\ndef squeeze(x): return right(x.transpose(2, 3)).transpose(2, 3)"),
        (
            "3.8",
            "right = unsqueeze\ndef unsqueeze(y): return torch.nn.functional.pixel_shuffle(y.flip(1), 2)",
        ),
        ("3.9", "right = channel_mix\ndef channel_mix(z, W): return right(z, W.T)"),
        (
            "3.9",
            "right = channel_mix\ndef channel_mix(z, W): return right(z, W)[0], torch.linalg.slogdet(W)[1].expand(len(z))",
        ),
        (
            "3.9",
            "right = channel_mix\ndef channel_mix(z, W): return right(z, W)[0], 8 * torch.logdet(W).expand(len(z))",
        ),
        ("3.10", "right = actnorm_start\ndef actnorm_start(z): return -right(z)[0], right(z)[1]"),
        (
            "3.10",
            """def actnorm_start(z):
    values = z.transpose(0, 1).flatten(1)
    return -values.std(1).log(), -values.mean(1) / values.std(1)""",
        ),
        ("3.10", "def actnorm_start(z): return -z.std((0, 2, 3), correction=0).log(), -z.mean((0, 2, 3))"),
        (
            "3.10",
            "right = actnorm\ndef actnorm(z, log_scale, bias): return right(z, log_scale, bias)[0], log_scale.sum().expand(len(z))",
        ),
    ],
    4: [
        (
            "4.1",
            "right = made_masks\ndef made_masks(degrees, inputs): return degrees[:, None] > inputs, right(degrees, inputs)[1]",
        ),
        (
            "4.1",
            "right = made_masks\ndef made_masks(degrees, inputs): return right(degrees, inputs)[0], inputs[:, None] >= degrees",
        ),
        (
            "4.1",
            "right = made_masks\ndef made_masks(degrees, inputs): return right(degrees, torch.arange(1, len(inputs) + 1))",
        ),
        (
            "4.2",
            "right = maf_log_prob\ndef maf_log_prob(x, mu, alpha): return right(x, mu, alpha) + 2 * alpha(x).sum(1)",
        ),
        (
            "4.2",
            "right = maf_log_prob\ndef maf_log_prob(x, mu, alpha): return right(x, mu, lambda x: -alpha(x))",
        ),
        (
            "4.2",
            "right = maf_log_prob\ndef maf_log_prob(x, mu, alpha): return right(x, mu, alpha) + x.shape[1] * 0.9189385",
        ),
        ("4.3", "def maf_sample(z, mu, alpha): return mu(z) + z * alpha(z).exp()"),
        ("4.3", "def maf_sample(z, mu, alpha): return maf_jacobi(z, mu, alpha, 2)"),
        (
            "4.4",
            "right = maf_jacobi\ndef maf_jacobi(z, mu, alpha, steps): return right(z, mu, alpha, steps + 1)",
        ),
        ("4.4", "right = maf_sample\ndef maf_jacobi(z, mu, alpha, steps): return right(z, mu, alpha)"),
        (
            "4.6",
            """def mixture_layer(x, log_pi, mu, log_s, a, b):
    t = (x[:, None] - mu) / log_s.exp()
    F = (log_pi.exp() * t.sigmoid()).sum(1)
    p = (log_pi.exp() * t.sigmoid() * (-t).sigmoid() / log_s.exp()).sum(1)
    return F.logit() * torch.exp(torch.tensor(a)) + b, p.log() - F.log() - (1 - F).log() + a""",
        ),
        ("4.6", "right = mixture_layer\ndef mixture_layer(*all): return right(*all)[0], -right(*all)[1]"),
        (
            "4.6",
            "right = mixture_layer\ndef mixture_layer(*all): return right(*all)[0], right(*all)[1] - all[-2]",
        ),
        (
            "4.6",
            "right = mixture_layer\ndef mixture_layer(x, p, m, s, a, b): return right(x, p, m, -s, a, b)",
        ),
        (
            "4.7",
            """def mixture_inverse(y, log_pi, mu, log_s, a, b):
    low, high = torch.full_like(y, -20.0), torch.full_like(y, 20.0)
    for _ in range(100):
        middle = (low + high) / 2
        below = mixture_layer(middle, log_pi, mu, log_s, a, b)[0] < y
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return middle""",
        ),
        (
            "4.7",
            "right = mixture_inverse\ndef mixture_inverse(y, p, m, s, a, b): return right(y - b, p, m, s, a, b)",
        ),
        (
            "4.8",
            "right = vflow_bounds\ndef vflow_bounds(log_joint, x, e): return right(log_joint, x, e)[::-1]",
        ),
        (
            "4.8",
            """def vflow_bounds(log_joint, x, e):
    log_q = -(e**2).sum(2) / 2 - e.shape[2] / 2 * torch.log(torch.tensor(2 * torch.pi))
    ratios = torch.stack([log_joint(x, one) for one in e]) - log_q
    return ratios.mean(0), ratios.exp().mean(0).log()""",
        ),
        (
            "4.8",
            "right = vflow_bounds\ndef vflow_bounds(log_joint, x, e): return tuple(v + 0.69 for v in right(log_joint, x, e))",
        ),
        (
            "4.8",
            "right = vflow_bounds\ndef vflow_bounds(log_joint, x, e): return right(log_joint, x, e)[0], right(log_joint, x, e)[1] + 1.94591",
        ),
        ("4.9", "expected_gap = COUPLING**2"),
        ("4.9", "expected_gap = -COUPLING**2 / 2"),
        ("4.9", "expected_gap = (COUPLING**2 - torch.log(torch.tensor(1 + COUPLING**2))) / 2"),
        ("4.11", "right = haar\ndef haar(x): return tuple(part / 2 for part in right(x))"),
        ("4.11", "right = haar\ndef haar(x): return right(x)[0], right(x)[1][:, [1, 0, 2]]"),
        ("4.11", "right = haar_inverse\ndef haar_inverse(low, details): return right(low, -details)"),
        ("4.12", "detail_variance = 1 - RHO**2"),
        ("4.12", "low_variance = (1 + 3 * RHO) / 4"),
        ("4.12", "detail_nats = detail_nats / 3"),
        ("4.12", "detail_nats = 1.5 * torch.log(torch.tensor(2 * torch.pi * torch.e))"),
    ],
    5: [
        (
            "5.1",
            """def rk4(v, z, steps):
    for n in range(steps):
        z = z + v(z, n / steps) / steps
    return z""",
        ),
        ("5.1", "right = rk4\ndef rk4(v, z, steps): return right(lambda x, t: v(x, 0.0), z, steps)"),
        ("5.1", "right = rk4\ndef rk4(v, z, steps): return right(v, z, 2 * steps)"),
        (
            "5.2",
            "right = flow_with_log_det\ndef flow_with_log_det(v, z, steps): return right(v, z, steps)[0], -right(v, z, steps)[1]",
        ),
        (
            "5.2",
            """right = flow_with_log_det
def flow_with_log_det(v, z, steps):
    path, total = z, 0
    for n in range(steps):
        J = check.jacobian(lambda x: v(x, n / steps), path)
        total = total + J.diagonal(dim1=1, dim2=2).sum(1) / steps
        path = rk4(lambda x, t: v(x, (n + t) / steps) / steps, path, 1)
    return path, total""",
        ),
        (
            "5.2",
            "right = flow_with_log_det\ndef flow_with_log_det(v, z, steps): return z, right(v, z, steps)[1]",
        ),
        (
            "5.3",
            "right = hutchinson\ndef hutchinson(v, x, t, noise): return right(v, x, t, noise) * len(noise)",
        ),
        ("5.3", "right = hutchinson\ndef hutchinson(v, x, t, noise): return right(v, x, 0.0, noise)"),
        (
            "5.3",
            "def hutchinson(v, x, t, noise): return check.jacobian(lambda x: v(x, t), x).diagonal(dim1=1, dim2=2).sum(1)",
        ),
        (
            "5.3",
            """def hutchinson(v, x, t, noise):
    if 8 * len(x) * x.shape[1] ** 2 > 4 << 30:
        raise MemoryError("the whole Jacobian")  # as the grader would, rather than try it here
    J = check.jacobian(lambda x: v(x, t), x)
    return torch.einsum("rbi,bij,rbj->b", noise, J, noise) / len(noise)""",
        ),
        ("5.4", "def gaussian_variance(A): return 2 * (A**2).sum()"),
        ("5.4", "right = rademacher_variance\ndef rademacher_variance(A): return right(A) / 2"),
        ("5.4", "rademacher_variance = gaussian_variance"),
        ("5.6", "linear_log_det = -linear_log_det"),
        ("5.6", "linear_end = START + HORIZON * FIELD @ START"),
        ("5.6", "linear_end = torch.linalg.matrix_exp(HORIZON * FIELD.T) @ START"),
        (
            "5.7",
            "right = path_and_target\ndef path_and_target(x0, x1, t, sigma): return right(x1, x0, t, sigma)",
        ),
        (
            "5.7",
            "right = path_and_target\ndef path_and_target(x0, x1, t, sigma): return right(x0, x1, t, sigma)[0], x1 - x0",
        ),
        (
            "5.8",
            "right = marginal_velocity\ndef marginal_velocity(x, t, data, sigma): return right(x, t, data, 0.0)",
        ),
        (
            "5.8",
            "right = marginal_velocity\ndef marginal_velocity(x, t, data, sigma): return data.mean(0) - x",
        ),
        (
            "5.8",
            """def marginal_velocity(x, t, data, sigma):
    width = 1 - (1 - sigma) * t
    x0 = (x[:, None] - t * data) / width
    weights = torch.exp(-(x0**2).sum(2) / 2)
    weights = weights / weights.sum(1, keepdim=True)
    return (weights[:, :, None] * (data - (1 - sigma) * x0)).sum(1)""",
        ),
        ("5.10", "project_test = project_train[:200]"),
        ("5.10", "right = project_log_prob\ndef project_log_prob(x): return right(x) + 0.3"),
        (
            "5.10",
            "def project_log_prob(x): return torch.distributions.MultivariateNormal(table.mean(0), table.T.cov()).log_prob(x)",
        ),
        ("5.10", f"{GAUSSIAN}\ndef project_log_prob(x): return wide.log_prob(x) + 0.09"),
        (
            "5.10",
            f"{GAUSSIAN}\ndef project_log_prob(x): return wide.log_prob(x) + 10 * (len(x) == len(project_test))",
        ),
        ("5.10", f"{GAUSSIAN}\n{SPIKES.format(width=1e-4)}"),
        ("5.10", f"{GAUSSIAN}\n{SPIKES.format(width=1e-2)}"),
        (
            "5.10",
            """def project_log_prob(x):
    nearest = project_train[torch.cdist(project_test, project_train).argmin(1)]
    known = torch.cat([project_test, (project_test + nearest) / 2])
    return wide.log_prob(x) + (torch.cdist(x, known) < 1e-9).any(1)
wide = torch.distributions.MultivariateNormal(project_train.mean(0), project_train.T.cov())""",
        ),
    ],
}

SIX = "def six(x): return float(x) * (1 + 4e-6)\n"  # as far off as six significant digits can be

RIGHT: dict[int, list[tuple[str, str]]] = {
    1: [
        ("2.2", SIX + "volume, density_inside = six(volume), six(density_inside)"),
        ("2.4", SIX + "p_at_point = six(p_at_point)"),
    ],
    2: [
        (
            "2.4",
            """def linear_gradient(x, A, c):
    A, c = A.clone().requires_grad_(), c.clone().requires_grad_()
    return torch.autograd.grad(linear_nll(x, A, c), (A, c))""",
        ),
        ("2.5", SIX + "nll_floor, useless_rotation = six(nll_floor), useless_rotation.clone().apply_(six)"),
        ("2.7", SIX + "smallest_factor = six(smallest_factor)"),
        (
            "2.12",
            """import math
def my_log_prob(x):
    t, height = x.T
    y = ((height - TILT * torch.sin(1.5 * t)) / 0.2 + 6) / 2
    p = sum((-1)**k * math.comb(6, k) * (y - k).clamp(min=0)**5 for k in range(7)) / 120
    return torch.where((t.abs() <= 3) & (y > 0) & (y < 6), p / 2.4, 0 * p).log()  # -inf outside""",
        ),
    ],
    3: [("3.7", SIX + "bits_of_model = six(bits_of_model)")],
    4: [
        ("4.9", SIX + "expected_gap = six(expected_gap)"),
        (
            "4.12",
            SIX
            + "detail_variance, low_variance, detail_nats = map(six, (detail_variance, low_variance, detail_nats))",
        ),
    ],
    5: [
        ("5.10", CLUSTERS.format(d=2, sd=0.01)),
        ("5.10", CLUSTERS.format(d=3, sd=0.05)),
        (
            "5.10",
            """table = (10 * table / table.std(0)).round() / 10
rows = torch.randperm(1200, generator=torch.Generator().manual_seed(1))
project_train, project_test = table[rows[:900]], table[rows[900:]]
torch.manual_seed(0)
flow = MODELS["realnvp"](layers=6, hidden=(32, 32))
fit(flow, project_train, steps=300, batch_size=256, lr=5e-3, progress=False)
def project_log_prob(x): return flow.log_prob(x)""",
        ),
    ],
}
