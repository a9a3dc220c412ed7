#!/usr/bin/env python3
"""report.py FIGURES DIR: from the lines that tests/sim/bench.c prints, DIR/sched.md and its charts (by gnuplot)."""
import subprocess
import sys

FIELDS = ("cpus", "hogs", "io", "sleepers", "cpu", "own", "cls", "p99", "max", "steps", "ns", "pulls")
CHARTS = {
    "sched-fairness": ("How far the worst vCPU is from its share over a second", "pCPUs", "percent of a pCPU", "xy",
                       (("thin", "cpus", "cpu", "3 vCPUs for 2 pCPUs"), ("thick", "cpus", "cpu", "10 a pCPU, and I/O"),
                        ("full", "cpus", "cpu", "16 a pCPU, and I/O"))),
    "sched-latency": ("Wake-up latency of I/O vCPUs among computing ones", "pCPUs", "microseconds", "x",
                      (("thick", "cpus", "max", "worst, 10 computing a pCPU"), ("full", "cpus", "max", "worst, 16 a pCPU"),
                       ("thick", "cpus", "p99", "99 of 100, 10 a pCPU"))),
    "sched-cost": ("Cost of a decision", "vCPUs on one pCPU", "tree nodes and queues looked at", "x",
                   (("queue", "hogs", "steps", "all runnable"), ("asleep", "sleepers", "steps", "8 runnable, the others asleep"))),
}


def chart(path, title, xlabel, ylabel, log, curves, rows):
    """One SVG of curves (kind, x, y, label)."""
    script = [f"set terminal svg size 720,420 background 'white'; set output '{path}'", f"set title '{title}'",
              f"set xlabel '{xlabel}'; set ylabel '{ylabel}'", f"set logscale {log}", "set grid; set key outside bottom",
              "" if "y" in log else "set yrange [0:*]",
              "plot " + ", ".join(f"'-' using 1:2 with linespoints lw 2 title '{label}'" for _, _, _, label in curves)]
    for kind, x, y, _ in curves:
        script += [f"{row[x]} {row[y]}" for row in rows if row["kind"] == kind] + ["e"]
    subprocess.run(["gnuplot"], input="\n".join(script), text=True, check=True)


def main():
    """Read the figures, write the report."""
    source, directory = sys.argv[1:]
    rows, caps, long_runs = [], [], []
    with open(source, encoding="ascii") as lines:
        for line in lines:
            kind, *values = line.split()
            if kind == "cap":
                caps.append(values)
            elif kind == "long":
                long_runs.append(values)
            else:
                rows.append(dict(zip(FIELDS, values), kind=kind))
    for name, (title, xlabel, ylabel, log, curves) in CHARTS.items():
        chart(f"{directory}/{name}.svg", title, xlabel, ylabel, log, curves, rows)
    text = ["# The scheduler under simulated time", "",
            "Made by `make bench-sched`: the hypervisor's `core/runq.c`, `balance.c` and `tree.c` on the host, one simulated "
            "second after one to settle. Computing vCPUs have weights 256, 512, 128 and 1024 in turn; I/O vCPUs compute "
            "50 us of each 10 ms. The ideal is what weights give, one pCPU at most; *worst vCPU* is the largest distance "
            "from it in percent of a pCPU, and in percent of its own share (a slice of 0.5 ms at least is that much of a "
            "small share, see below); *class* is the distance of all vCPUs of one weight together. Steps are tree nodes and other queues "
            "looked at per decision or wake-up; ns are this host's CPU time, "
            "the simulator's own events and what its caches miss included.", "",
            "| pCPUs | computing | I/O | asleep | worst vCPU, % of a pCPU | of its share, % | class, % | wake-up 99 %, us | "
            "worst, us | steps | ns | pulls |", "|" + "--:|" * 12]
    for row in rows:
        text.append("| " + " | ".join(row[field] for field in FIELDS) + " |")
    text += ["", "Wake-up percentiles are powers of two above the figure."] + [""]
    text += [f"![{title[0]}]({name}.svg)" for name, title in CHARTS.items()]
    text += ["", "## Many on one pCPU", "",
             "Nobody is ever further from its share than about a slice of 0.5 ms; with a thousand on one pCPU that is all "
             "that one gets in a second, so that a second cannot be fair. The distance does not grow with time:", "",
             "| computing | seconds | worst vCPU, ms | of its share, % | class, % |", "|" + "--:|" * 5]
    text += ["| " + " | ".join(values) + " |" for values in long_runs]
    text += ["", "## Caps", "", "A domain of four computing vCPUs on four pCPUs, in percent of one pCPU:", "",
             "| cap | got |", "|--:|--:|"] + [f"| {want} | {got} |" for want, got in caps]
    with open(f"{directory}/sched.md", "w", encoding="ascii") as out:
        out.write("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
