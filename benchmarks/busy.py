#!/usr/bin/env python3
"""How much longer a detection and a training step take where the machine has other work, or a quota of one CPU.

  benchmarks/busy.py                                                      ours alone
  benchmarks/busy.py --before OLD/detector_bench                          an older build in turn with it
  build/peers/bin/python benchmarks/busy.py --peers ../shared/peers/cpu   OpenVINO and PyTorch in turn with it

  alone       --threads threads
  alone-1     one thread
  busy-1      beside one busy loop
  busy-all    beside one busy loop on each processor, pinned to it
  quota       in a control group with a quota of one CPU, threads as a program chooses there without being told; peers have all
  quota-all   the same with --threads threads
  quota-1     the same with one thread

Conditions and programs take turns, each in a process of its own; a cell is the median over the rounds and, in brackets, its
ratio to `alone`, for the quotas to `alone-1`. At the end: the images per second of eight user threads with one detector beside
those of one. Loops and control group end with this program; a loop also when this program is killed, or after --limit seconds.
"""
import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

RESNET18 = ["--height", "240", "--image-width", "320", "--backbone", "resnet18", "--anchor-sizes", "32,64,128,256"]
# Of train_frcnn --preset shapes.
SHAPES = ["--height", "192", "--image-width", "256", "--backbone", "vgg11", "--width", "16", "--batch-norm",
          "--head-width", "256", "--anchor-sizes", "24,48,96", "--rpn-positive-iou", "0.5", "--train-pre-nms", "1000",
          "--train-post-nms", "300"]
# name -> arguments of detector_bench, and the runs of a process
CASES = {"infer": (["infer", *RESNET18], 20), "step-resnet18": (["step", *RESNET18], 10),
         "step-shapes": (["step", *SHAPES], 30)}
CONDITIONS = ["alone", "alone-1", "busy-1", "busy-all", "quota", "quota-all", "quota-1"]


def spin(seconds, parent):
    """A busy loop, until the time is over or its parent is gone."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and os.getppid() == parent:
        for _ in range(100_000):
            pass


@contextlib.contextmanager
def busy_loops(count, pinned, seconds):
    loops = []
    try:
        for cpu in sorted(os.sched_getaffinity(0))[:count]:
            loop = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--spin", str(seconds), str(os.getpid())])
            loops.append(loop)
            if pinned:
                os.sched_setaffinity(loop.pid, {cpu})
        if loops:
            time.sleep(0.3)  # until their interpreters have started
        yield
        if any(loop.poll() is not None for loop in loops):
            raise RuntimeError("a busy loop ended early")
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def group_folders():
    """Where a control group with a CPU quota may be made, and the files and values that set it: version 1, then 2."""
    own = {}
    with open("/proc/self/cgroup") as lines:
        for line in lines:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            own.update(dict.fromkeys(controllers.split(","), path.lstrip("/")))
    with open("/proc/self/mounts") as lines:
        mounts = [line.split()[1:4] for line in lines]
    for folder, kind, options in mounts:
        if kind == "cgroup" and "cpu" in options.split(","):
            yield os.path.join(folder, own.get("cpu", "")), {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "100000"}
    for folder, kind, _ in mounts:
        if kind == "cgroup2":
            yield os.path.join(folder, own.get("", "")), {"cpu.max": "100000 100000"}


@contextlib.contextmanager
def quota_group():
    """The folder of a control group with a quota of one CPU; None, after a line that says why, where none can be made."""
    made, reasons = None, []
    for parent, settings in group_folders():
        folder = os.path.join(parent, f"busy-{os.getpid()}")
        try:
            os.mkdir(folder)
            made = folder
            for name, value in settings.items():
                with open(os.path.join(folder, name), "w") as file:
                    file.write(value)
            break
        except OSError as error:
            reasons.append(f"{error.filename}: {error.strerror}")
            if made:
                os.rmdir(made)
            made = None
    if not made:
        print(f"no control group, so no quotas ({'; '.join(reasons) or 'no cpu controller is mounted'})")
    try:
        yield made
    finally:
        for _ in range(50):  # a group whose last process has just ended is busy for a moment
            with contextlib.suppress(OSError):
                if made:
                    os.rmdir(made)
                break
            time.sleep(0.1)
        if made and os.path.exists(made):
            print(f"could not remove {made}: rmdir it", file=sys.stderr)


def last_line(done):
    """What a program that failed says last, its hint at --help aside."""
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("Run with --help")]
    return lines[-1][:200] if lines else f"exit status {done.returncode}"


def last_json(command, limit, group=None):
    """What a command prints as its last line. A group is entered before the program starts."""
    if group:
        command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', os.path.join(group, "cgroup.procs"), *command]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"longer than {limit:g} s") from None
    if done.returncode:
        raise RuntimeError(last_line(done))
    return json.loads(done.stdout.strip().splitlines()[-1])


class Ours:
    """A case of a build's detector_bench."""

    def __init__(self, name, bench, arguments, runs):
        self.name, self.command = name, [bench, *arguments, "--runs", str(runs)]

    def milliseconds(self, threads, limit, group):
        return 1e3 * last_json([*self.command, "--threads", str(threads)], limit, group)["median_s"]


class Peer:
    """A variant of detector_peers.py or train_peers.py, by the interface that these have for their own processes."""

    def __init__(self, name, script, arguments, runs):
        self.name, self.command = name, [sys.executable, script, *arguments, "--size", "240x320", "--runs", str(runs)]

    def milliseconds(self, threads, limit, group):
        command = [*self.command, "--threads", str(threads), "--limit", str(limit)]
        return statistics.median(last_json(["env", f"OMP_NUM_THREADS={threads}", *command], limit, group)["ms"])


def prepared(detector, step, work, limit):
    """Whether what a peer needs could be made in the folder `work`; if not, prints why."""
    command = [sys.executable, detector, "--child", "prepare", "--variant", step, "--case", "resnet18", "--size", "240x320",
               "--work", work, "--limit", str(limit)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        print(f"peers: {step} is left out: longer than {limit:g} s")
        return False
    if done.returncode:
        print(f"peers: {step} is left out: {last_line(done)}")
    return done.returncode == 0


def peers_of(folder, variants, work, limit):
    """The peers, exported where they need it. PyTorch's training step is the variant train-..."""
    detector, ready = os.path.join(folder, "detector_peers.py"), {}
    for variant in variants:
        if variant.startswith("train-"):
            yield Peer(f"step-resnet18, {variant}", os.path.join(folder, "train_peers.py"),
                       ["--child", "--case", "step-resnet18", "--variant", variant[len("train-"):]], CASES["step-resnet18"][1])
            continue
        steps = ["openvino" if variant.startswith("openvino") else "reference"]
        steps += ["openvino-int8"] if variant == "openvino-int8" else []
        for step in steps:
            if step not in ready:
                ready[step] = all(ready[s] for s in steps if s in ready) and prepared(detector, step, work, limit)
        if all(ready[step] for step in steps):
            arguments = ["--child", "time", "--case", "resnet18", "--variant", variant, "--work", work, "--no-parts"]
            yield Peer(f"infer, {variant}", detector, arguments, CASES["infer"][1])


def measure(a, programs, group):
    """(program, condition) -> milliseconds of each round, or an error."""
    times, errors = {}, {}
    processors = len(os.sched_getaffinity(0))
    for round_ in range(a.rounds):
        for condition in a.conditions:
            quota = condition.startswith("quota")
            if quota and not group:
                continue
            loops = {"busy-1": 1, "busy-all": processors}.get(condition, 0)
            for program in programs:
                at = program.name, condition
                if at in errors:
                    continue
                try:
                    with busy_loops(loops, condition == "busy-all", a.limit):
                        threads = 1 if condition in ("alone-1", "quota-1") else a.threads
                        if condition == "quota" and isinstance(program, Ours):
                            threads = 0  # its own choice
                        times.setdefault(at, []).append(program.milliseconds(threads, a.limit - 1, group if quota else None))
                    print(f"  {round_ + 1}: {condition}: {program.name}: {times[at][-1]:.1f} ms", file=sys.stderr, flush=True)
                except (RuntimeError, OSError, ValueError, KeyError) as error:
                    errors[at] = str(error)
                    print(f"  {condition}: {program.name}: {error}", file=sys.stderr, flush=True)
    return times, errors


def print_table(a, programs, times, errors):
    print(f"\n| ms (ratio) | {' | '.join(a.conditions)} |\n|{'---|' * (len(a.conditions) + 1)}")
    for program in programs:
        cells = []
        for condition in a.conditions:
            taken = times.get((program.name, condition))
            base = times.get((program.name, "alone-1" if condition.startswith("quota") else "alone"))
            if (program.name, condition) in errors or not taken:
                cells.append(errors.get((program.name, condition), "-"))
            elif base and not condition.startswith("alone"):
                cells.append(f"{statistics.median(taken):.1f} ({statistics.median(taken) / statistics.median(base):.2f})")
            else:
                cells.append(f"{statistics.median(taken):.1f}")
        print(f"| {program.name} | {' | '.join(cells)} |")


def user_threads(a, name, bench):
    """Images per second of eight user threads beside those of one, in turn."""
    rates = {1: [], 8: []}
    try:
        for _ in range(a.rounds):
            for users, of_users in rates.items():
                command = [bench, *CASES["infer"][0], "--user-threads", str(users), "--threads", str(a.threads), "--runs",
                           str(max(2, a.runs // users if a.runs else 40 // users))]
                of_users.append(last_json(command, a.limit)["images_per_s"])
    except (RuntimeError, ValueError, KeyError) as error:
        print(f"{name}: no user threads: {error}")
        return
    one, eight = (statistics.median(v) for v in rates.values())
    print(f"{name}: 8 user threads with one detector: {eight:.1f} images a second, one: {one:.1f}, ratio {eight / one:.2f}")


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bench", default="build/release/benchmarks/detector_bench", help="default %(default)s")
    p.add_argument("--before", metavar="PATH", help="detector_bench of an older build, measured in turn")
    p.add_argument("--peers", metavar="DIR", help="folder of detector_peers.py and train_peers.py")
    p.add_argument("--variants", nargs="+", default=["openvino-f32", "torch-f32", "train-f32"],
                   help="of detector_peers.py, or train- and one of train_peers.py; default %(default)s")
    p.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), metavar="CASE",
                   help=f"of {', '.join(CASES)}; default all")
    p.add_argument("--conditions", nargs="+", default=CONDITIONS, choices=CONDITIONS, metavar="CONDITION",
                   help="of the above; default all")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default %(default)s")
    p.add_argument("--runs", type=int, default=0, help="timed runs of a process; default 10 to 30, by case")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--limit", type=float, default=300, help="seconds for one process")
    p.add_argument("--no-user-threads", action="store_true", help="leave out the eight user threads")
    p.add_argument("--spin", nargs=2, help=argparse.SUPPRESS)
    a = p.parse_args()
    if min(a.threads, a.rounds) < 1 or a.runs < 0 or a.limit <= 1:
        p.error("--threads, --rounds, --runs and --limit: expected positive numbers")
    for program in [] if a.spin else filter(None, [a.bench, a.before]):
        if not shutil.which(program):
            p.error(f"{program}: no such program")
    return a


def main():
    a = parse()
    if a.spin:
        return spin(float(a.spin[0]), int(a.spin[1]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that loops and group are cleaned up then, too
    load = os.getloadavg()[0]
    print(f"{len(os.sched_getaffinity(0))} processors, {a.threads} threads, load before {load:.1f}")
    if load > 0.3:
        print("the machine is not quiet: the ratios are not to be quoted")
    builds = {"before": a.before, "ours": a.bench} if a.before else {"ours": a.bench}
    with tempfile.TemporaryDirectory(prefix="busy-") as work, quota_group() as group:
        peers = list(peers_of(a.peers, a.variants, work, a.limit)) if a.peers else []
        programs = []
        for case in a.cases:
            arguments, runs = CASES[case]
            programs += [Ours(f"{case}, {name}", bench, arguments, a.runs or runs) for name, bench in builds.items()]
            programs += [peer for peer in peers if peer.name.startswith(case + ",")]
        times, errors = measure(a, programs, group)
        print_table(a, programs, times, errors)
    if not a.no_user_threads:
        print()
        for name, bench in builds.items():
            user_threads(a, name, bench)
    return 1 if errors else 0


if __name__ == "__main__":
    raise SystemExit(main())
