"""Writes what tensor cores give, bit for bit, as the MMA-Sim package simulates them.

    pip install mmasim==2.1.1 torch numpy ninja
    python scripts/goldens/tensor_cores.py [--mmas N --seed S --out FOLDER]

MMA-Sim (arXiv:2511.10909) is a model of tensor cores that its authors compared with the hardware bit for bit. Into
kernels/emulate/goldens/, one record after the other, all little-endian:

    bf16.bin, f16.bin   mma.m16n8k16 with f32 sums: a [16][16] u16, b [8][16] u16 (B transposed), c [16][8] f32,
                        then d [16][8] f32 on Ampere, and d on Hopper
    e4m3.bin            mma.m16n8k32 with f32 sums, on Hopper: a [16][32] u8, b [8][32] u8, c and d as above

Numbers are random, each row and column of its own kind: of the same size, of any size, such that products cancel but for the last
digits, subnormal, zero; in some records infinities and NaN among them; in some of bf16 such that products are about as small as
the last digit of a subnormal f32, where it shows which exponent a zero counts for. c is zero, or about as large as the product,
or takes away most of it, or far larger or smaller, or next to the largest number there is.

Hopper has no tensor core instruction behind mma.sync in E4M3. nvcc 13.0 makes of it (cuobjdump -sass, sm_90): conversions to f16;
HMMA.16816.F32 from zero, over the lower two elements of each register (k % 4 < 2); another over the upper two, on top of the
first; FADD of c. MMA-Sim gives the products, this script the rest.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from mmasim.nv_ptx import MMA

OUT = Path(__file__).resolve().parents[2] / "kernels" / "emulate" / "goldens"
# Bits of the exponent, bits of the fraction, the torch type.
FORMATS = {"bf16": (8, 7, torch.bfloat16), "f16": (5, 10, torch.float16), "e4m3": (4, 3, torch.float8_e4m3fn)}
NOT_A_NUMBER = np.uint32(0x7FFFFFFF)


def random_bits(rng, format, rows, k, with_outsiders, is_minute):
    """Rows of numbers as bits, each row of a kind; of about 2^-70 if `is_minute`."""
    exponent_bits, fraction_bits, _ = FORMATS[format]
    bias, width = 2 ** (exponent_bits - 1) - 1, exponent_bits + fraction_bits
    # The largest field of a finite number. E4M3 has numbers in the highest, too, but for one.
    highest = 2**exponent_bits - (1 if format == "e4m3" else 2)
    result = np.zeros((rows, k), np.uint32)
    for row in result:
        kind = rng.choice(["alike", "near", "any", "tiny", "cancels", "few", "zero"], p=[0.2, 0.25, 0.15, 0.1, 0.2, 0.07, 0.03])
        fraction = rng.integers(0, 2**fraction_bits, k)
        spread = {"alike": 2, "near": min(14, bias - 1), "cancels": min(6, bias - 1)}.get(kind)
        middle, spread = (bias - 70, 3) if is_minute else (bias, spread)
        exponent = rng.integers(0, highest + 1, k) if spread is None else middle + rng.integers(-spread, spread + 1, k)
        if kind == "tiny":
            exponent = rng.integers(0, 3, k) * rng.integers(0, 2, k)
        if kind == "few":
            fraction, exponent = fraction * (rng.random(k) < 0.2), exponent * (rng.random(k) < 0.2)
        if kind == "zero":
            fraction, exponent = np.zeros(k, int), np.zeros(k, int)
        sign = rng.integers(0, 2, k)
        row[:] = sign << width | exponent << fraction_bits | fraction
        if kind == "cancels":
            # Pairs of opposite sign, some of them one unit apart, in any order.
            row[1::2] = row[::2] ^ (1 << width) ^ rng.integers(0, 2, k // 2)
            row[:] = row[rng.permutation(k)] if rng.random() < 0.3 else row
        if format == "e4m3":
            row[(row & 0x7F) == 0x7F] -= 1
        if with_outsiders:
            outside = [0x7F, 0xFF] if format == "e4m3" else [highest + 1 << fraction_bits, (highest + 1 << fraction_bits) | 1, 0]
            place = rng.random(k) < 0.02
            row[place] = rng.choice(outside, place.sum()) | rng.integers(0, 2, place.sum()) << width
    return result.astype(np.uint8 if format == "e4m3" else np.uint16)


def tensor(bits, format):
    integer = torch.from_numpy(bits.view(np.int8 if bits.dtype == np.uint8 else np.int16).copy())
    return (integer.view(torch.uint8) if format == "e4m3" else integer).view(FORMATS[format][2])


def accumulators(rng, product, with_outsiders, is_minute):
    """For each product, what it is added to: zero, or as small as it is, if `is_minute`."""
    c = np.zeros_like(product)
    with np.errstate(all="ignore"):
        for at, d in np.ndenumerate(product):
            finite = d if np.isfinite(d) else np.float32(1)
            sign = rng.choice(np.float32([-1, 1]))
            match rng.choice([0, 0, 0, 1]) if is_minute else rng.integers(0, 9):
                case 0:
                    c[at] = sign * np.float32(0)
                case 1 | 2:
                    c[at] = sign * finite * np.float32(2 * rng.random())
                case 3 | 4:
                    c[at] = -np.nextafter(finite, np.float32(rng.choice([0, np.inf])))
                case 5:
                    c[at] = finite * np.float32(2.0 ** rng.integers(-30, 31))
                case 6:
                    c[at] = rng.integers(0, 2**32, dtype=np.uint32).view(np.float32)
                case 7:
                    c[at] = sign * rng.integers(0, 2**24, dtype=np.uint32).view(np.float32)
                case 8:
                    c[at] = sign * rng.integers(0x7F000000, 0x7F800000, dtype=np.uint32).view(np.float32)
            if not (with_outsiders or np.isfinite(c[at])):
                c[at] = 1
    return c


def multiply(architecture, format, a, b, c):
    mma = MMA(architecture, f"m16n8k16.f32.{format}.{format}.f32")
    return mma(tensor(a, format), tensor(b, format).T, torch.from_numpy(c)).numpy()


def multiply_e4m3(a, b, c):
    as_half = lambda bits: tensor(bits, "e4m3").to(torch.float16)
    mma = MMA("Hopper", "m16n8k16.f32.f16.f16.f32")
    upper = np.arange(32) % 4 >= 2
    sum = torch.zeros(16, 8)
    for part in (~upper, upper):
        sum = mma(as_half(a)[:, part], as_half(b)[:, part].T, sum)
    with np.errstate(all="ignore"):
        d = c + sum.numpy()
    d.view(np.uint32)[np.isnan(d)] = NOT_A_NUMBER
    return d


def write(format, count, rng, out):
    k, records = (32 if format == "e4m3" else 16), []
    for index in range(count):
        with_outsiders = index % 4 == 3
        is_minute = format == "bf16" and index % 8 == 6
        a, b = (random_bits(rng, format, rows, k, with_outsiders, is_minute) for rows in (16, 8))
        zero = np.zeros((16, 8), np.float32)
        if format == "e4m3":
            c = accumulators(rng, multiply_e4m3(a, b, zero), with_outsiders, is_minute)
            results = [multiply_e4m3(a, b, c)]
        else:
            c = accumulators(rng, multiply("Hopper", format, a, b, zero), with_outsiders, is_minute)
            results = [multiply(architecture, format, a, b, c) for architecture in ("Ampere", "Hopper")]
        records += [a.tobytes(), b.tobytes(), c.tobytes()] + [d.astype(np.float32).tobytes() for d in results]
    (out / f"{format}.bin").write_bytes(b"".join(records))


def main():
    arguments = argparse.ArgumentParser(description="Writes goldens of tensor cores' sums.")
    arguments.add_argument("--mmas", type=int, default=64, help="records of bf16 and f16; half as many of e4m3")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--out", type=Path, default=OUT)
    arguments = arguments.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number, format in enumerate(FORMATS):
        count = arguments.mmas // (2 if format == "e4m3" else 1)
        write(format, count, np.random.default_rng([arguments.seed, number]), arguments.out)


main()
