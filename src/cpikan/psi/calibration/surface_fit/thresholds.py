"""Settings of the search for a surface and of the verdict on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """Effort of the search and limits of what counts as determined; the benchmarks of the fit confirm the defaults."""

    # the pixels of the fit
    fewest_pixels: int = 500
    pixel_share: int = 16  # one pixel of the image in so many, within the next two
    least_pixels: int = 2500
    most_pixels: int = 4096
    # starts and minima
    rounds: int = 4  # of random starts, while the best leaves more than noise
    starts_per_round: int = 4  # that are followed to the end
    good_chi2: float = (
        1.3  # of held-out pixels: the noise of a sample is known to some 5 %, and light is not quite smooth
    )
    alike_chi2: float = 1.01  # ratio of chi squared of starts that came to the same
    agreeing: int = 4  # how many must
    close_chi2: float = 2.0  # times the best's chi squared: a minimum within it is refined too
    most_minima: int = 4  # that are refined
    same_rad: float = 0.1  # surfaces closer than this, or than the next, are one
    same_sigmas: float = 3.0
    # the verdict
    log_odds: float = 25.0  # to the next different surface: an evidence of a model that is not quite true says too much
    worst_share: float = 0.2  # of the modulation that may be left over
    unevenness: float = 2.5  # false minima leave 2.8 and more, detail and dust 2.1 and less
    uneven_chi2: float = 1.15  # below this it is the noise that is uneven by chance
    largest_sigma_rad: float = 0.2
    uneven_light: float = 0.15  # of the modulation: false minima have 0.2 and more, light uneven by 15 % at most 0.1
    overfitted: float = 1.25  # held-out over fitted chi squared
