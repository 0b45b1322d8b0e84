"""The pixel pass of pixels that are on the device: the formula's functions, compiled where that pays, put together."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cpikan.psi.kernels import torch_formula as formula
from cpikan.psi.kernels.model import PixelModel
from cpikan.psi.kernels.torch_formula import Formed, Found, Kind, Phasors, Pixels, Waves

FAR_PIXELS = 2**14  # of a batch of pixels that fit no near order
Outputs = tuple[Tensor, Tensor, Tensor, Tensor]  # height (nm) or phase (rad), its sigma, modulation, flags


class _Functions(NamedTuple):
    """The formula's entries, plain or compiled."""

    measure: Callable[..., Any]
    try_orders: Callable[..., Any]
    form: Callable[..., Any]
    wrap: Callable[..., Any]


_EAGER = _Functions(formula.measure, formula.try_orders, formula.form, formula.wrap)


@functools.cache
def _compiled() -> _Functions:
    """Compile one fused kernel per entry and kind of stack; shapes are fixed, so that each is compiled once."""
    options: dict[str, Any] = {"max_fusion_size": 4096}  # all orders of a search in one kernel
    return _Functions(*(torch.compile(entry, dynamic=False, options=options) for entry in _EAGER))


@dataclass
class Look:
    """A piece between its first look and the end of its search; ``phasors`` and the rest are None for one wavelength."""

    outputs: Outputs
    phasors: Phasors | None = None
    found: Found | None = None
    formed: Formed | None = None


class TorchCompute:
    """One stack's pixel pass on device tensors; everything is queued on the current stream."""

    def __init__(self, model: PixelModel, device: torch.device, *, compiled: bool) -> None:
        self._search, self._carre = model.search, model.demodulation.carre
        self._device, self._constants = device, formula.constants(model, device)
        self._wide = self._search is not None and self._search.near_range_nm < self._search.range_nm
        self._functions = _compiled() if compiled else _EAGER
        self._steps: dict[int, Tensor] = {}
        order = range(model.demodulation.wavelengths) if model.search is None else model.search.order
        self.order = tuple(order)  # of the wavelengths in `Pixels`: the anchor first

    def __call__(self, pixels: Pixels) -> Outputs:
        """Convert frames to height or phase, sigma, modulation, flags."""
        look = self.first_look(pixels)
        self.search_on(look)
        return look.outputs

    def first_look(self, pixels: Pixels) -> Look:
        """Demodulate; with two or more wavelengths try the first orders and form heights. Never waits for the device."""
        kind = Kind(pixels.samples.dtype == torch.int16, self._carre)
        if self._search is None:
            return Look(self._functions.wrap(pixels, self._constants, kind))
        p, found, formed = self._functions.measure(pixels, self._constants, kind)
        return Look((formed.value, p.sigma, p.modulation, formed.flags), p, found, formed)

    def search_on(self, look: Look) -> None:
        """Search orders past the first look: the other near ones for all pixels, all orders where nothing near fits.

        Waits for the current stream when there is a range beyond the near one.
        """
        search, p, found, formed = self._search, look.phasors, look.found, look.formed
        if search is None or p is None or found is None or formed is None:
            return
        c, anchor = self._constants, p.waves.turns[0]
        if search.near_candidates > formula.CHUNK:
            found = self._try_from(formula.CHUNK, p.waves, c.near, found)
            formed = self._functions.form(anchor, found, p.flags, c.level)
        if self._wide:
            far = formed.far.nonzero().squeeze(1)
            if len(far):
                found = self._search_far(far, p.waves, found, formed.far)
                formed = self._functions.form(anchor, found, p.flags, c.level)
        look.outputs = (formed.value, p.sigma, p.modulation, formed.flags)

    def _try_from(self, first: int, waves: Waves, limits: Tensor, found: Found) -> Found:
        """Try the orders from ``first`` to the last within the near or the wide limits."""
        assert self._search is not None
        near = limits is self._constants.near
        count = self._search.near_candidates if near else self._search.candidates
        for step in range(first, count, formula.CHUNK):
            found = self._functions.try_orders(waves, self._constants.ratio, limits, self._step(step), found)
        return found

    def _step(self, step: int) -> Tensor:
        """Return the number as a tensor of its own on the device: another value compiles nothing anew."""
        if step not in self._steps:
            self._steps[step] = torch.full((), float(step), dtype=torch.float32, device=self._device)
        return self._steps[step]

    def _search_far(self, far: Tensor, waves: Waves, found: Found, is_far: Tensor) -> Found:
        """Search the whole range for the pixels listed in ``far``, in batches of a fixed length; all at once if many."""
        wide = self._constants.wide
        if len(far) > len(is_far) // 16:
            best = self._try_from(0, waves, wide, formula.nothing_found(waves.turns[0]))
            return Found(*(torch.where(is_far, w, n) for w, n in zip(best, found, strict=True)))
        length = min(FAR_PIXELS, len(is_far))
        merged = Found(*(tensor.clone() for tensor in found))
        for start in range(0, len(far), length):
            part = far[start : start + length]
            index = torch.zeros(length, dtype=far.dtype, device=far.device)  # the rest of the batch repeats pixel 0
            index[: len(part)] = part
            few = Waves(*(tuple(t.index_select(0, index) for t in tensors) for tensors in waves))
            best = self._try_from(0, few, wide, formula.nothing_found(few.turns[0]))
            for target, values in zip(merged, best, strict=True):
                target.index_copy_(0, part, values[: len(part)])
        return merged

    def compile(self, pixels: Pixels) -> None:
        """Compile every function a stack of this kind may need, by running each once on ``pixels``; results are dropped.

        Where compilation fails (no compiler, no Triton) the plain functions are used from then on, with a warning.
        """
        try:
            self._touch(pixels)
        except torch._dynamo.exc.TorchDynamoException as failure:
            reason = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
            warnings.warn(f"torch.compile failed, the slower plain kernels run instead: {reason}", stacklevel=2)
            self._functions = _EAGER

    def _touch(self, pixels: Pixels) -> None:
        look = self.first_look(pixels)
        if look.phasors is None or look.found is None:
            return
        c, waves, run = self._constants, look.phasors.waves, self._functions
        run.try_orders(waves, c.ratio, c.near, self._step(0), look.found)
        run.form(waves.turns[0], look.found, look.phasors.flags, c.level)
        count = min(FAR_PIXELS, pixels.samples.shape[2])
        few = Waves(*(tuple(t[:count].clone() for t in tensors) for tensors in waves))
        run.try_orders(few, c.ratio, c.wide, self._step(0), formula.nothing_found(few.turns[0]))
