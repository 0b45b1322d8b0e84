"""The verb ``reconstruct``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from cpikan.cli.verb import OUTPUT, Place, job_verb
from cpikan.errors import InputError

_WORTH_TELLING = 0.1
STACK = Place(
    "source",
    "STACK",
    "folder of images or other files, .npy, .npz, .tif, .zarr, .mat, .fits, video, Zygo .dat or .datx, .raw, file.h5::/dataset",
)


def tell(result: dict[str, Any]) -> str:
    """Format the figures of a reconstruction as a few lines; InputError where those of a finished one are damaged."""
    try:
        return _lines(result)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as failure:
        if not result.get("already_finished"):
            raise
        raise InputError(
            f"the record beside {result.get('output')} does not hold the figures of a run ({failure}): add --overwrite, not "
            "--resume, to make both anew"
        ) from failure


def _lines(result: dict[str, Any]) -> str:
    from cpikan.report.fits import step_lines

    sigma, robust = result["sigma_nm_median"], result.get("pv_robust_nm")
    inner = "" if robust is None else f" ({robust:.2f} nm without the outermost 0.1 % of the pixels)"
    lines = [
        *_warning_line(result),
        f"output     {result['output']}",
        f"height     PV {result['pv_nm']:.2f} nm{inner}, RMS {result['rms_nm']:.2f} nm, sigma {sigma:.3g} nm (median)",
        f"pixels     {result['valid_fraction']:.2%} valid, {result['ambiguous_fraction']:.3g} of them ambiguous, "
        f"{result['components']} component{'s' if result['components'] != 1 else ''}",
        *_sigma_line(result),
        *_surface_line(result),
        *step_lines(result),
        *_ripple_line(result),
        f"time       {result['seconds']:.2f} s ({result['megapixels_per_second']:.1f} MPix/s), "
        f"memory {result['peak_anonymous_mib']:.0f} MiB",
        *(f"note       {text}" for text in gathered(result.get("notes") or ())),
    ]
    return "\n".join(lines)


def _warning_line(result: dict[str, Any]) -> list[str]:
    """Name what stderr warned of, before any figure."""
    count, names = len(result.get("warnings") or ()), dict.fromkeys(result.get("warning_names") or ())
    if not count:
        return []
    told = "a warning is" if count == 1 else f"{count} warnings are"
    return [f"WARNING    {told} above ({', '.join(names)}); what to do: docs/explanation/trust.md"]


def gathered(sentences: Sequence[str]) -> list[str]:
    """Join sentences that differ by their wavelength alone: "wavelength 1: ..." and "wavelength 2: ..." become one."""
    found: dict[str, list[str]] = {}
    for sentence in sentences:
        match = re.fullmatch(r"wavelength (\d+): (.*)", sentence, re.DOTALL)
        found.setdefault(match[2] if match else sentence, []).extend([match[1]] if match else [])
    heads = {rest: "wavelength" + "s" * (len(numbers) > 1) for rest, numbers in found.items()}
    return [f"{heads[rest]} {', '.join(numbers)}: {rest}" if numbers else rest for rest, numbers in found.items()]


def _sigma_line(result: dict[str, Any]) -> list[str]:
    """Say what of sigma does not average out, where there is such a share."""
    share, factors = result.get("sigma_systematic_share"), result.get("sigma_average_factors") or {}
    found = [f"{share:.0%} of its variance is systematic"] if share and share >= _WORTH_TELLING else []
    if factors.get("8", 0.0) >= 1 + _WORTH_TELLING:
        found.append(f"a mean of 8 x 8 pixels has {factors['8']:.2g} times sigma / 8")
    return [f"sigma      {'; '.join(found)}"] if found else []


def _surface_line(result: dict[str, Any]) -> list[str]:
    surface = result.get("surface")
    if not surface:
        return []
    pvr = "-" if surface["pvr_nm"] is None else f"{surface['pvr_nm']:.2f} nm"
    return [f"surface    PVr {pvr}, Sa {surface['sa_nm']:.2f} nm; removed: {', '.join(result['form']['removed'])}"]


def _ripple_line(result: dict[str, Any]) -> list[str]:
    ripple = result.get("ripple_mrad")
    return [f"ripple     {', '.join(f'{k}x {v:.1f}' for k, v in ripple.items())} mrad"] if ripple else []


VERB = job_verb("reconstruct", (STACK, Place("output", "OUT", ".npy, .tif or .zarr", OUTPUT)), tell)
