"""Wrong answers that look right: a sign, a factor, a case forgotten. Each must lose points on its question.

They run among the solutions, whose names they may use: ``right`` is the solution's own function.
"""

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
    ],
}
