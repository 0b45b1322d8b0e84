"""Schwarz methods: least squares over many unknowns by corrections on overlapping subsets of them and on a coarse space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import LinearOperator, SuperLU, gmres, splu

from cpikan.errors import unknown_name

VARIANTS = ("additive", "multiplicative", "restricted")
_ALIKE = 1e-8  # of the largest entry: parts whose matrices differ by less share one inverse, which only steers
_LOOSE = 1e-14  # of the largest eigenvalue: what no row determines is not corrected
_CYCLE, _MEMORY = 1e-7, 100  # fall of the residual, and steps, of one run of GMRES between two residuals of the rows
_LEAST = 0.5  # of the correction before: one that is not smaller is rounding


@dataclass(frozen=True)
class Solved:
    """The unknowns (n,), how many corrections they took, and the length of the last one relative to them."""

    x: np.ndarray
    iterations: int
    correction: float


@dataclass(frozen=True)
class Schwarz:
    """Minimise |T x + t|^2 with ``rows`` T (m, n) and ``right`` t (m,) by corrections on ``parts``, index arrays that overlap.

    A correction on a part minimises over its unknowns, all others held. ``additive`` adds those of all parts;
    ``restricted`` does, of each only what no earlier part holds (Cai and Sarkis, SIAM J. Sci. Comput. 21, 1999);
    ``multiplicative`` takes one part after the other, each seeing what those before did (Schwarz 1870). The columns of
    ``coarse`` (n, c) span a space that is corrected before the parts, which see what it did (A-DEF1 of Tang, Nabben, Vuik and
    Erlangga, J. Sci. Comput. 39, 2009): without it what is far takes as many corrections as there are parts on the way. Rows
    of gradients make it the alternating method for Laplace's equation; theory: Xu, SIAM Rev. 34 (1992). Raises InputError for
    another variant.
    """

    rows: csr_array
    right: np.ndarray
    parts: Sequence[np.ndarray]
    variant: str = "multiplicative"
    coarse: csr_array | None = None
    _colours: list[list[_Group]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise unknown_name("Schwarz method", self.variant, VARIANTS)
        colours = (
            _coloured(self.rows, self.parts) if self.variant == "multiplicative" else [list(range(len(self.parts)))]
        )
        owned = self._owned() if self.variant == "restricted" else [np.ones(len(part)) for part in self.parts]
        inverses: dict[bytes, np.ndarray] = {}
        object.__setattr__(self, "_colours", [self._groups(one, owned, inverses) for one in colours])

    def steepest(self, x: np.ndarray) -> np.ndarray:
        """Compute -T'(T x + t), by way of the residual of the rows: its rounding is then no worse than that of the rows."""
        return np.asarray(-(self.rows.T @ (self.rows @ x + self.right)))

    def correction(self, s: np.ndarray) -> np.ndarray:
        """Make of s = -T'(T x + t) the change of x by all parts and the coarse space; linear in s."""
        found = np.zeros_like(s)
        if self._bottom is not None and self.coarse is not None:
            found += self.coarse @ self._bottom.solve(self.coarse.T @ s)
        for groups in self._colours:
            left = s - self.product(found) if found.any() else s
            for group in groups:
                group.add(left, found)
        return found

    def product(self, x: np.ndarray) -> np.ndarray:
        """Multiply by T'T."""
        return np.asarray(self.rows.T @ (self.rows @ x))

    @cached_property
    def relaxation(self) -> float:
        """Give the share of an additive correction that cannot overshoot: one over how many parts a row sees."""
        if self.variant != "additive":
            return 1.0
        touched = np.bincount(np.concatenate(_touched(self.rows, self.parts)))
        return 1.0 / int(touched.max())

    def iterate(self, x: np.ndarray, steps: int) -> np.ndarray:
        """Take corrections as they are, a stationary iteration."""
        for _ in range(steps):
            x = x + self.relaxation * self.correction(self.steepest(x))
        return x

    def solve(self, tolerance: float = 1e-12, most: int = 1000) -> Solved:
        """Minimise by GMRES with the correction as preconditioner, from x = 0.

        GMRES begins anew at the residual of the rows, until a correction is ``tolerance`` times x long, or is not half as long
        as the one before, which is what rounding leaves; at most ``most`` corrections, but for the last run of GMRES.
        """
        n = self.rows.shape[1]
        taken: list[float] = []
        system, steer = (LinearOperator((n, n), one, dtype=float) for one in (self.product, self.correction))
        x, before = np.zeros(n), np.inf
        while True:
            s = self.steepest(x)
            change = self.correction(s)
            size = float(np.linalg.norm(change)) / max(float(np.linalg.norm(x)), 1e-300)
            taken.append(size)
            if size <= tolerance or not size <= _LEAST * before or len(taken) >= most or not change.any():
                return Solved(x, len(taken), size)
            before = size
            step, _ = gmres(
                system,
                s,
                M=steer,
                rtol=_CYCLE,
                restart=_MEMORY,
                maxiter=1,
                callback=taken.append,
                callback_type="pr_norm",
            )
            x = x + step

    @cached_property
    def _bottom(self) -> SuperLU | None:
        """Factor the coarse problem."""
        if self.coarse is None:
            return None
        lifted = self.rows @ self.coarse
        square = (lifted.T @ lifted).tocsc()
        ridge = _LOOSE * float(square.diagonal().max()) * eye_array(square.shape[0], format="csc")
        options = {"SymmetricMode": True}
        return splu((square + ridge).tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)

    def _owned(self) -> list[np.ndarray]:
        """Weigh the unknowns of every part: one where no part before it holds them."""
        free, found = np.ones(self.rows.shape[1]), []
        for part in self.parts:
            found.append(free[part])
            free[part] = 0.0
        return found

    def _groups(
        self, numbers: Sequence[int], owned: Sequence[np.ndarray], inverses: dict[bytes, np.ndarray]
    ) -> list[_Group]:
        """Put parts with the same inverse together: boxes of one shape are factored once."""
        columns = self.rows.tocsc()
        alike: dict[bytes, list[int]] = {}
        for number in numbers:
            local = columns[:, self.parts[number]]
            square = (local.T @ local).toarray()
            largest = 2.0 ** math.ceil(math.log2(float(square.max(initial=0.0)) or 1.0))
            key = (np.round(square / (_ALIKE * largest)) + 0.0).tobytes()  # without negative zeros
            if key not in inverses:
                inverses[key] = _inverse(square)
            alike.setdefault(key, []).append(number)
        return [
            _Group(np.stack([self.parts[n] for n in found]), inverses[key], np.stack([owned[n] for n in found]))
            for key, found in alike.items()
        ]


@dataclass(frozen=True)
class _Group:
    """Parts (p, k) of one shape, their inverse (k, k), and weights (p, k) of what it gives."""

    parts: np.ndarray
    inverse: np.ndarray
    weight: np.ndarray

    def add(self, s: np.ndarray, found: np.ndarray) -> None:
        np.add.at(found, self.parts, (s[self.parts] @ self.inverse) * self.weight)


def _inverse(square: np.ndarray) -> np.ndarray:
    """Invert a symmetric matrix where it is not singular."""
    values, vectors = np.linalg.eigh(square)
    firm = values > _LOOSE * max(float(values[-1]), 1e-300)
    return np.asarray((vectors[:, firm] / values[firm]) @ vectors[:, firm].T)


def _touched(rows: csr_array, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """List the rows that every part has unknowns in."""
    columns = rows.tocsc()
    return [np.unique(columns[:, part].indices) for part in parts]


def _coloured(rows: csr_array, parts: Sequence[np.ndarray]) -> list[list[int]]:
    """Sort parts, in their order, into groups of which no two touch the same row: they are corrected together."""
    taken: list[np.ndarray] = []
    found: list[list[int]] = []
    for number, mine in enumerate(_touched(rows, parts)):
        colour = next((n for n, rows_of in enumerate(taken) if not rows_of[mine].any()), len(taken))
        if colour == len(taken):
            taken.append(np.zeros(rows.shape[0], dtype=bool))
            found.append([])
        taken[colour][mine] = True
        found[colour].append(number)
    return found
