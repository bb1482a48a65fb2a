#!/usr/bin/env python3
"""The table of ptxas_table.sh from what nvcc and ptxas left in a folder: FILE.ARCH.ptx and FILE.ARCH.log. Usage:
ptxas_table.py FOLDER FILTER NVCC_VERSION. Exits 1 when a kernel spills that is not called naive."""
import pathlib
import re
import subprocess
import sys

# Of a multiprocessor, by compute capability (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
LIMITS = {"80": {"shared": 164 * 1024}, "90": {"shared": 228 * 1024}}
REGISTERS, THREADS, BLOCKS = 65536, 2048, 32
RESERVED = 1024  # bytes of shared memory that the system takes for each block
DEFAULT_THREADS = 256  # of a kernel that does not say how large its blocks are


def blocks_per_multiprocessor(arch, threads, registers, shared):
    """How many blocks fit: registers are given out to warps in units of 256, warps in fours."""
    warps = -(-threads // 32)
    per_warp = -(-registers * 32 // 256) * 256
    warps_by_registers = REGISTERS // per_warp // 4 * 4
    return min(BLOCKS, THREADS // (warps * 32), warps_by_registers // warps, LIMITS[arch]["shared"] // (shared + RESERVED))


def occupancy(arch, threads, registers, shared):
    """Resident threads as a part of those that there could be."""
    return blocks_per_multiprocessor(arch, threads, registers, shared) * -(-threads // 32) * 32 / THREADS


def kernels_of(log, ptx):
    """Of each kernel: mangled name, registers, spilled bytes, static shared memory, threads of a block or None."""
    threads = {}
    for match in re.finditer(r"\.entry\s+(\w+)\s*\([^)]*\)\s*((?:\.\w+[^\n{]*\n)*)", ptx):
        bound = re.search(r"\.maxntid\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?", match.group(2))
        if bound:
            sizes = [int(size) for size in bound.groups() if size]
            threads[match.group(1)] = sizes[0] * (sizes[1] if len(sizes) > 1 else 1) * (sizes[2] if len(sizes) > 2 else 1)
    for part in log.split("Compiling entry function '")[1:]:
        name = part.split("'")[0]
        spill = sum(int(n) for n in re.findall(r"(\d+) bytes spill", part))
        registers = int(re.search(r"Used (\d+) registers", part).group(1))
        shared = re.search(r"(\d+) bytes smem", part)
        yield name, registers, spill, int(shared.group(1)) if shared else 0, threads.get(name)


def short(text):
    """A demangled kernel without namespaces, parameters and return type."""
    text = re.sub(r"\(anonymous namespace\)::|<unnamed>::|[A-Za-z_]\w*::", "", text)
    text = re.sub(r"\((?:int|bool|unsigned int|long|unsigned)\)", "", text)
    if text.startswith("void "):
        text = text[5:]
    depth, end = 0, len(text)
    for i, c in enumerate(text):  # the first parenthesis outside template arguments begins the parameters
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            end = i
            break
    return text[:end].strip()


def main():
    folder, filt, version = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    rows, failures = [], []
    for log in sorted(folder.glob("*.log")):
        file, arch, _ = log.name.rsplit(".", 2)
        for name, registers, spill, shared, threads in kernels_of(log.read_text(), log.with_suffix(".ptx").read_text()):
            demangled = subprocess.run([filt, name], capture_output=True, text=True, check=True).stdout.strip()
            kernel = short(demangled)
            if not re.search(r"\w+_kernel", kernel):
                continue  # CUB's
            part = occupancy(arch, threads or DEFAULT_THREADS, registers, shared)
            rows.append(f"| {file} | `{kernel}` | {arch} | {threads or str(DEFAULT_THREADS) + '?'} | {registers} | {spill} | {shared} | "
                        f"{100 * part:.0f} % |")
            if spill and "naive" not in kernel:
                failures.append(f"{file}.cu: {kernel} spills {spill} bytes on sm_{arch}")
    print("# Resources of the kernels\n")
    print(f"By `scripts/ptxas_table.sh`, nvcc {version}. Threads are those of `__launch_bounds__`; {DEFAULT_THREADS}? where a kernel leaves "
          "them open. Spills and shared memory in bytes; shared memory that is sized at launch is not in the report and not in the "
          "occupancy, which is the part of 2048 threads that a multiprocessor holds by registers, threads and shared memory.\n")
    print("| file | kernel | sm | threads | registers | spills | shared | occupancy |\n|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    for failure in failures:
        print("ptxas_table: " + failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
