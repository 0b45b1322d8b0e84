"""Scaled-cPIKAN: phase-shifting interferometry at camera speed, and the Chebyshev networks behind it.

The public names are those of ``__init__.pyi``. Each is loaded on first use: importing the package stays fast, and the pixel
path never imports torch.
"""

from __future__ import annotations

import lazy_loader

from cpikan.version import VERSION

__version__ = VERSION
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
