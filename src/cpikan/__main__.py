"""``python -m cpikan``."""

import sys

from cpikan.cli import main

sys.exit(main())
