"""The fields once more in mpmath, from their definitions and the numbers of their parameters, one point at a time."""

from __future__ import annotations

from mpmath import mp, mpf

DIGITS = 60  # numerical derivatives of second order keep a third of them, 20: more than float64 shows


def numbers(tensor):
    return [numbers(row) for row in tensor] if tensor.ndim else mpf(float(tensor))


def scaled(field, point):
    lower, upper = numbers(field.scaling.lower.detach()), numbers(field.scaling.upper.detach())
    return [2 * (x - a) / (b - a) - 1 for x, a, b in zip(point, lower, upper, strict=True)]


def dense(layer, nodes):
    weight, bias = numbers(layer.weight.detach()), numbers(layer.bias.detach())
    return [b + sum(n * row[o] for n, row in zip(nodes, weight, strict=True)) for o, b in enumerate(bias)]


def chebyshev_nodes(nodes, degree):
    return [mp.chebyt(k, n) for k in range(1, degree + 1) for n in nodes]


def chebyshev(layer, nodes):
    return dense(layer, chebyshev_nodes(nodes, layer.degree))


def network(layers, nodes, one=chebyshev, between=mp.tanh):
    for layer in layers[:-1]:
        nodes = [between(z) for z in one(layer, nodes)]
    return one(layers[-1], nodes)


def scaled_cpikan(field, point):
    return network(list(field.layers), scaled(field, point))


def mlp(field, point):
    return network(list(field.layers), scaled(field, point), dense)


def siren(frequency):
    return lambda field, point: network(
        list(field.layers), scaled(field, point), dense, lambda z: mp.sin(mpf(frequency) * z)
    )


def fourier(field, point):
    coordinates, columns = scaled(field, point), numbers(field.embedding.phases.frequencies[0].mT)
    phases = [2 * mp.pi * sum(b * x for b, x in zip(column, coordinates, strict=True)) for column in columns]
    return network(list(field.layers), [mp.cos(p) for p in phases] + [mp.sin(p) for p in phases])


def mexican_hat(x):
    return 2 / (mp.sqrt(3) * mp.pi ** mpf("0.25")) * (1 - x * x) * mp.exp(-x * x / 2)


def wavelets(layer, nodes):
    shift, log_scale = numbers(layer.shift.detach()), numbers(layer.log_scale.detach())
    arguments = [
        (n - t) / mp.exp(s)
        for ts, ss in zip(shift, log_scale, strict=True)
        for n, t, s in zip(nodes, ts, ss, strict=True)
    ]
    return dense(layer, [mexican_hat(y) for y in arguments])


def wavelet_kan(field, point):
    return network(list(field.layers), scaled(field, point), wavelets)


def separable(field, point):
    factors = [network(list(layers), [x]) for layers, x in zip(field.axes, scaled(field, point), strict=True)]
    return dense(field.output, [mp.fprod(pair) for pair in zip(*factors, strict=True)])


def blend(degree):
    def formula(field, point):
        coordinates = scaled(field, point)
        kan, mlp_nodes = coordinates, coordinates
        for layer in field.kan:
            kan = [mp.tanh(z) for z in chebyshev(layer, kan)]
        for layer in field.mlp:
            mlp_nodes = [mp.tanh(z) for z in dense(layer, mlp_nodes)]
        gate = 1 / (1 + mp.exp(-dense(field.gate, coordinates)[0]))
        features = [gate * t for t in chebyshev_nodes(kan, degree)] + [gate] + [(1 - gate) * n for n in mlp_nodes]
        return dense(field.output, features)

    return formula


def toward(gate, new, old):
    s = mpf(float(gate.scale.detach()[0]))
    return [z + s * (n - z) for n, z in zip(new, old, strict=True)]


def tanhs(nodes):
    return [mp.tanh(z) for z in nodes]


def residual(field, point):
    z = chebyshev(field.first, scaled(field, point))
    for layer, gate in zip(field.layers, field.gates, strict=True):
        z = toward(gate, chebyshev(layer, tanhs(z)), z)
    return chebyshev(field.output, tanhs(z))


def gated(field, point):
    def between(choice):
        return [c * a + (1 - c) * b for c, a, b in zip(choice, u, v, strict=True)]

    z = chebyshev(field.first, scaled(field, point))
    u, v = (chebyshev(view, tanhs(z)) for view in field.views)
    for block in field.blocks:
        f = toward(block.inside, between(chebyshev(block.one, tanhs(z))), z)
        z = toward(block.skip, between(chebyshev(block.two, tanhs(f))), z)
    return chebyshev(field.output, tanhs(z))


def deep_galerkin(field, point):
    x = scaled(field, point)
    s = tanhs(dense(field.first, x))
    for block in field.blocks:
        every, n = tanhs(dense(block.gates, [*x, *s])), len(s)
        z, g, r = every[:n], every[n : 2 * n], every[2 * n :]
        h = tanhs(dense(block.proposal, [*x, *(a * b for a, b in zip(r, s, strict=True))]))
        s = [(1 - g) * h + z * s for z, g, h, s in zip(z, g, h, s, strict=True)]
    return dense(field.output, s)


def steep(one, between):
    def formula(field, point):
        nodes = scaled(field, point)
        for layer, slope in zip(field.layers, field.steepness, strict=False):
            factors = [mpf(float(s)) for s in slope.scale.detach().expand(layer.outputs)]
            nodes = [between(s * z) for s, z in zip(factors, one(layer, nodes), strict=True)]
        return one(field.layers[-1], nodes)

    return formula


def periodic(field, point):
    x, y = scaled(field, point)
    waves = [w for k in range(1, field.embedding.waves + 1) for w in (mp.cos(k * mp.pi * y), mp.sin(k * mp.pi * y))]
    return network(list(field.field.layers), [x, *waves])


def frequencies(field, point):
    columns = numbers(field.embedding.phases.frequencies.detach().mT)
    phases = [2 * mp.pi * sum(b * x for b, x in zip(c, scaled(field, point), strict=True)) for c in columns]
    return network(list(field.field.layers), [mp.cos(p) for p in phases] + [mp.sin(p) for p in phases])
