"""What the authors' package conflictfree answers to random gradients, for tests/learning/test_directions.py to compare with.

The package (PyPI, MIT) is not among the requirements: put it on the path first. Gradients are those of NumPy's generator with
the seeds of the table, so that only answers are kept. It is an oracle for gradients that are not parallel: a gradient of zero
gives it NaN.

    pip install --no-deps --target /tmp/conflictfree conflictfree==0.1.7
    PYTHONPATH=/tmp/conflictfree python benchmarks/conflictfree_answers.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

TABLE = Path(__file__).parents[1] / "tests" / "learning" / "conflictfree_answers.json"
SIZES = ((2, 9), (3, 9), (3, 40), (5, 9), (8, 9))  # terms and parameters
STEPS = 12


def gradients(terms: int, parameters: int, seed: int) -> torch.Tensor:
    """Draw gradients (terms, parameters) whose lengths differ by up to a factor of a thousand."""
    random = np.random.default_rng([seed, terms, parameters])
    lengths = 10.0 ** random.uniform(-1.5, 1.5, size=(terms, 1))
    return torch.from_numpy(lengths * random.normal(size=(terms, parameters)))


def main() -> None:
    """Write the table."""
    import conflictfree
    from conflictfree.grad_operator import ConFIGOperator, PCGradOperator

    conflictfree.Sequence = Sequence  # its module of momenta imports the name from there, where 0.1.7 does not have it
    from conflictfree.momentum_operator import PseudoMomentumOperator

    torch.set_default_dtype(torch.float64)  # the package makes its own tensors
    table: dict[str, Any] = {"package": "conflictfree 0.1.7", "config": [], "momentum": []}
    for terms, parameters in SIZES:
        drawn = gradients(terms, parameters, 0)
        answers = {
            "answer": ConFIGOperator().calculate_gradient(drawn).tolist(),
            "least_squares": ConFIGOperator(allow_simplified_model=False).calculate_gradient(drawn).tolist(),
            "surgery_in_order": PCGradOperator().calculate_gradient(drawn).tolist(),
        }
        table["config"].append({"terms": terms, "parameters": parameters, **answers})
    for terms in (2, 3):
        operator = PseudoMomentumOperator(terms)
        steps = [
            operator.calculate_gradient(step % terms, gradients(terms, 7, step)[step % terms]).tolist()
            for step in range(STEPS)
        ]
        table["momentum"].append({"terms": terms, "parameters": 7, "answers": steps})
    TABLE.write_text(json.dumps(table) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
