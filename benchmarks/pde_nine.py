"""Nine problems that papers often pose (`own_problems.nine`) by the default recipe: writes results/pde_nine.csv.

    python benchmarks/pde_nine.py [PROBLEM ...] [--seconds 60] [--seeds 1] [--resume] [-o FILE]

As `pde_own`; references are closed forms, SciPy's DOP853 to 1e-12, and Fourier series by exponential Runge-Kutta steps.
"""

from __future__ import annotations

import sys

from own_problems import nine
from pde_own import RESULTS, measure

if __name__ == "__main__":
    sys.exit(measure(__doc__, {"nine": nine.PROBLEMS}, RESULTS / "pde_nine.csv"))
