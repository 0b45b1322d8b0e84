"""Random numbers by position: each pixel and frame has its own, so rows can be computed alone and in any order.

A counter (the column) is hashed with three keys per row and frame; Box-Muller turns two uniforms into two normals.
The hash rounds are multiply-xorshift finalisers in the manner of MurmurHash3 (A. Appleby) and lowbias32 (C. Wellons).
Everything is branch-free float32 without fused or reordered operations: LLVM vectorises it, and the bits are the same
on every machine with IEEE arithmetic.
"""

from __future__ import annotations

import numpy as np

from cpikan.compiled import compiled

u32, u64, i32, f32 = np.uint32, np.uint64, np.int32, np.float32

GAUSSIAN, DEAD = 1, 2  # streams of numbers that never share a key

_SQRT_2 = f32(2.0**0.5)
_LN_2 = f32(np.log(2.0))
_HALF_LN_2 = f32(0.5 * np.log(2.0))
_THIRD, _FIFTH, _SEVENTH = f32(1 / 3), f32(1 / 5), f32(1 / 7)
_HALF, _QUARTER, _ONE, _TWO, _ZERO = f32(0.5), f32(0.25), f32(1.0), f32(2.0), f32(0.0)
_2_TO_MINUS_24 = f32(2.0**-24)
# Taylor series of sin(2 pi b); for |b| <= 1/4 the first term left out is (pi/2)^13 / 13! = 6e-8
_S1, _S3, _S5 = f32(2 * np.pi), f32(-((2 * np.pi) ** 3) / 6), f32((2 * np.pi) ** 5 / 120)
_S7, _S9, _S11 = (
    f32(-((2 * np.pi) ** 7) / 5040),
    f32((2 * np.pi) ** 9 / 362880),
    f32(-((2 * np.pi) ** 11) / 39916800),
)


def generator(seed: int, stream: int) -> np.random.Generator:
    """Make a generator for the few numbers drawn once per stack; one stream per purpose, so none disturbs another."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(stream,))))


@compiled(error_model="numpy")
def sin_quarter(turns: np.float32) -> np.float32:
    """Compute sin(2 pi turns) for |turns| <= 1/4, error below 2e-7."""
    t = turns * turns
    return turns * (_S1 + t * (_S3 + t * (_S5 + t * (_S7 + t * (_S9 + t * _S11)))))


@compiled(error_model="numpy")
def cos_turns(turns: np.float32) -> np.float32:
    """Compute cos(2 pi turns) for any float32; the rounding of ``turns`` itself is the only loss."""
    reduced = turns - np.floor(turns + _HALF)
    return sin_quarter(_QUARTER - abs(reduced))


@compiled
def row_key(seed: int, stream: int, row: int, index: int) -> np.uint64:
    """Compute a 64-bit key for one row of one stream (splitmix64, twice)."""
    z = u64(seed)
    for part in (u64(stream), u64(row), u64(index)):
        z = z + u64(0x9E3779B97F4A7C15) + part * u64(0xD1B54A32D192ED03)
        z = (z ^ (z >> u64(30))) * u64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> u64(27))) * u64(0x94D049BB133111EB)
        z = z ^ (z >> u64(31))
    return z


@compiled(error_model="numpy")
def uniform_bits(column: int, first: np.uint32, second: np.uint32) -> np.uint32:
    """Draw 32 random bits for one pixel of a row with keys ``first`` and ``second``."""
    v = u32(u32(column) + first)
    v = u32(v ^ (v >> u32(16)))
    v = u32(v * u32(0x7FEB352D))
    v = u32(v ^ (v >> u32(15)))
    v = u32(v ^ second)
    v = u32(v * u32(0x846CA68B))
    v = u32(v ^ (v >> u32(16)))
    v = u32(v * u32(0x9E3779B1))
    return u32(v ^ (v >> u32(15)))


@compiled(error_model="numpy")
def normal_rows(key: np.uint64, first_out: np.ndarray, second_out: np.ndarray) -> None:
    """Fill two float32 rows with independent standard normals (Box and Muller 1958); the largest possible is 6.6."""
    first, second = u32(key & u64(0xFFFFFFFF)), u32(key >> u64(32))
    third = u32(first ^ u32(second * u32(0xC2B2AE35)))
    for x in range(first_out.shape[0]):
        v = uniform_bits(x, first, second)
        w = u32(v + third)
        w = u32(w * u32(0x85EBCA6B))
        w = u32(w ^ (w >> u32(13)))
        w = u32(w * u32(0xC2B2AE35))
        w = u32(w ^ (w >> u32(16)))
        # u = (integer + 1/2) / 2^31; -2 ln u from exponent and mantissa: ln m = ln sqrt(2) + 2 artanh((m - r)/(m + r))
        bits = f32(f32(i32(v >> u32(1))) + _HALF).view(i32)
        exponent = f32(i32((bits >> i32(23)) - i32(158)))
        mantissa = i32((bits & i32(0x7FFFFF)) | i32(0x3F800000)).view(f32)
        s = (mantissa - _SQRT_2) / (mantissa + _SQRT_2)
        q = s * s
        log = _HALF_LN_2 + _TWO * s * (_ONE + q * (_THIRD + q * (_FIFTH + q * _SEVENTH))) + exponent * _LN_2
        square = -_TWO * log
        radius = np.sqrt(square if square > _ZERO else _ZERO)
        turns = f32(i32(w >> u32(8))) * _2_TO_MINUS_24 - _HALF
        size = abs(turns)
        sine = sin_quarter(_QUARTER - abs(size - _QUARTER))
        first_out[x] = radius * sin_quarter(_QUARTER - size)
        second_out[x] = radius * (sine if turns > _ZERO else -sine)
