"""What figures of merit of a height map rest on: when an order is wrong, and how wide an interval of 95 % is."""

from __future__ import annotations

from cpikan.errors import InputError

NORMAL_95 = 1.96  # two-sided 95 % of a normal distribution


def wrong_order_limit_nm(wavelengths_nm: tuple[float, ...] | list[float]) -> float:
    """Compute the height error in nm from which a pixel counts as a wrong order: a quarter of the shortest wavelength.

    In reflection an order is half a wavelength of height, so the limit is half an order. Raises InputError without
    wavelengths.
    """
    if len(wavelengths_nm) == 0:
        raise InputError("no wavelength given: wrong orders are counted against the shortest one")
    return float(min(wavelengths_nm)) / 4
