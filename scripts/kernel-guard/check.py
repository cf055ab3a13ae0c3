#!/usr/bin/env python3
"""Compiles every kernel and holds what became of it against kernels/resources.txt. Needs nvcc and cuobjdump, no GPU.

A kernel may not take more registers, shared memory or stack than the table says, spill more, or lose its tensor-core
instructions or its 16-byte loads, and products by warpgroups may not wait for each other. Attention by warpgroups takes
its softmax before it waits for the sums (kernels/warpgroup.cuh, finish_before_waiting). From sm_90 on each kernel must
have the instruction that waits for the kernel before it (kernels/device.cuh, wait_for_previous). `--write` writes the
table anew: look at what changed before you commit it.
"""

import concurrent.futures
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = ROOT / "kernels" / "resources.txt"
ARCHITECTURES = ("sm_80", "sm_90")
# What uses Hopper's own instructions, as build.rs has it.
FOR_HOPPER = "warpgroup_*.cu"
HEADER = """\
# What each kernel takes of a GPU, as nvcc {version} compiles it: registers of a thread, static shared memory of a block,
# bytes of a thread's stack and spilled ones; whether it multiplies on tensor cores, and how it loads 16 bytes: to registers (LDG), past them
# to shared memory (LDGSTS), or not at all. Written and checked by scripts/kernel-guard/check.py.
#
"""
# What griddepcontrol.wait becomes.
WAITS = "ACQBULK"
# From where the scores are there to where the sums are: a lane has 32 scores of a tile.
SOFTMAX = re.compile(r"WARPGROUP\.DEPBAR\.LE gsb0, 0x1(.*?)WARPGROUP\.DEPBAR\.LE gsb0, 0x0", re.DOTALL)
COLUMNS = ("kernel", "arch", "registers", "shared", "stack", "spills", "tensor", "16-byte")
INFO = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers(?:[^\n]*?(?P<shared>\d+) bytes smem)?",
    re.DOTALL,
)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout, done.stderr


def functions(sass):
    """The instructions of each function."""
    parts = re.split(r"Function : (\w+)", sass)[1:]
    return dict(zip(parts[::2], parts[1::2]))


def compiled(source, architecture):
    """A row for each kernel of a file."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = pathlib.Path(folder) / "kernels.cubin"
        flags = ["-std=c++17", "-O3", f"-arch={architecture}", "-Xptxas", "-v", "-cubin"]
        _, said = run("nvcc", *flags, "-o", cubin, source)
        sass, _ = run("cuobjdump", "-sass", cubin)
    if "serialized" in said:
        sys.exit(f"error: {source.name} {architecture}: products by warpgroups wait for each other\n{said}")
    code = functions(sass)
    rows = {}
    for found in INFO.finditer(said):
        body = code[found["name"]]
        if architecture != "sm_80" and not re.search(rf"\b{WAITS}\b", body):
            sys.exit(f"error: {found['name']} {architecture}: it does not wait for the kernel before ({WAITS})")
        if found["name"].startswith("paged_prefill") and found["name"].endswith("warpgroups"):
            softmax = SOFTMAX.search(body)
            if not softmax or softmax[1].count("MUFU.EX2") < 32:
                sys.exit(f"error: {found['name']} {architecture}: its softmax waits for the sums of the tile before")
        wide = [name for name in ("LDGSTS", "LDG") if re.search(rf"\b{name}\.E\S*\.128", body)]
        rows[found["name"], architecture] = (
            int(found["registers"]),
            int(found["shared"] or 0),
            int(found["stack"]),
            int(found["stores"]) + int(found["loads"]),
            "yes" if re.search(r"\b[HIQ]G?MMA\.", body) else "no",
            "+".join(wide) or "none",
        )
    names = set(re.findall(r"^EMULATED\((\w+)\)", source.read_text(), re.MULTILINE))
    if names != {name for name, _ in rows}:
        sys.exit(f"error: {source.name} says EMULATED of {sorted(names)}, nvcc has {sorted(name for name, _ in rows)}")
    return rows


def architectures_of(source):
    return ("sm_90a",) if source.match(FOR_HOPPER) else ARCHITECTURES


def read_table():
    rows = {}
    for line in TABLE.read_text().splitlines():
        if line and not line.startswith(("#", "kernel ")):
            name, architecture, *numbers, tensor, wide = line.split()
            rows[name, architecture] = (*map(int, numbers), tensor, wide)
    return rows


def faults(given, allowed):
    for key in sorted(allowed.keys() - given.keys()):
        yield f"{' '.join(key)}: in the table, but there is no such kernel"
    for key, (*numbers, tensor, wide) in sorted(given.items()):
        if key not in allowed:
            yield f"{' '.join(key)}: not in the table"
            continue
        most = allowed[key]
        for what, value, limit in zip(COLUMNS[2:], numbers, most):
            if value > limit:
                yield f"{' '.join(key)}: {what} {value}, at most {limit}"
        if most[-2] == "yes" and tensor == "no":
            yield f"{' '.join(key)}: no tensor-core instruction"
        for way in set(most[-1].split("+")) - set(wide.split("+")) - {"none"}:
            yield f"{' '.join(key)}: no 16-byte {way}"


def written(rows):
    table = [COLUMNS, *((*key, *map(str, row)) for key, row in sorted(rows.items()))]
    widths = [max(len(row[i]) for row in table) for i in range(len(COLUMNS))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table)
    version = re.search(r"\bV(\d\S+)", run("nvcc", "--version")[0])[1]
    return HEADER.format(version=version) + "\n".join(lines) + "\n"


def main():
    sources = sorted((ROOT / "kernels").glob("*.cu"))
    work = [(source, architecture) for source in sources for architecture in architectures_of(source)]
    rows = {}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for its in pool.map(lambda item: compiled(*item), work):
            rows.update(its)
    if "--write" in sys.argv[1:]:
        TABLE.write_text(written(rows))
        print(f"{TABLE.relative_to(ROOT)}: {len(rows)} rows")
        return
    found = list(faults(rows, read_table()))
    if found:
        hint = "hint: if this is meant, `scripts/kernel-guard/check.py --write` takes it into the table"
        sys.exit("\n".join([f"error: {TABLE.relative_to(ROOT)} does not allow", *found, hint]))
    spilling = sum(row[2] > 0 for row in rows.values())
    print(f"{len(rows)} kernels of {len(sources)} files: within the table, {spilling} with spills")


main()
