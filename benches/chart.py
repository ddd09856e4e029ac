#!/usr/bin/env python3
"""Draws what `cargo bench -p sslfile-benches -- --csv samples.csv` has measured, as SVG:

    python3 benches/chart.py samples.csv > src/docs/chart.svg

Each case has a line, each engine a mark on it: the rate of `sslfile` divided by that of the raw stream of the same TLS
library in the same round, as the median of all rounds, with a bar from the first to the third quartile. The scale is
logarithmic, so that twice as fast and half as fast are equally far from 1.
"""

import argparse
import csv
import math
import statistics
import sys
from collections import defaultdict
from xml.sax.saxutils import escape

# Peer: the raw stream it is compared with, the engine, and what else is said of it.
SPIN = ", busy_poll(50 µs)"
PEERS = {
    "ours-openssl": ("openssl", "openssl", ""),
    "ours-openssl-spin": ("openssl", "openssl", SPIN),
    "ours-rustls": ("rustls", "rustls", ""),
    "ours-rustls-spin": ("rustls", "rustls", SPIN),
    "ours-native": ("native-tls", "native", ""),
}
# Engine: its name in the legend and its mark.
ENGINES = {
    "openssl": ("Engine::OpenSsl to openssl::SslStream", "circle"),
    "rustls": ("Engine::Rustls to rustls::StreamOwned", "square"),
    "native": ("Engine::Native to native_tls::TlsStream", "diamond"),
}
CASES = {
    "bulk-1k": "1 KiB writes, one way",
    "bulk-1k-together": "1 KiB writes, on one processor",
    "bulk-16k": "16 KiB writes, one way",
    "bulk-64k": "64 KiB writes, one way",
    "bulk-1m": "1 MiB writes, one way",
    "both-ways": "64 KiB writes, both ways at once",
    "trip-64": "64 B there and back, on one processor",
    "trip-64-apart": "64 B there and back, on two",
    "handshake": "full handshakes",
    "resumed": "resumed handshakes",
}

STYLE = """
  .page { fill: #ffffff; stroke: #d8dee4; }
  text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
  .title { font-size: 16px; font-weight: 600; }
  .small { font-size: 12px; fill: #59636e; }
  .grid { stroke: #d8dee4; } .base { stroke: #59636e; stroke-width: 1.5; }
  .openssl { fill: #1f6feb; stroke: #1f6feb; } .rustls { fill: #bc4c00; stroke: #bc4c00; }
  .native { fill: #1a7f37; stroke: #1a7f37; }
  text.openssl, text.rustls, text.native { stroke: none; font-variant-numeric: tabular-nums; }
  .quartiles { stroke-width: 3; stroke-opacity: 0.45; stroke-linecap: round; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #3d444d; } text { fill: #f0f6fc; } .small { fill: #9198a1; }
    .grid { stroke: #2a313c; } .base { stroke: #9198a1; }
    .openssl { fill: #58a6ff; stroke: #58a6ff; } .rustls { fill: #f0883e; stroke: #f0883e; }
    .native { fill: #3fb950; stroke: #3fb950; }
  }
"""

WIDTH, LEFT, TOP, ROW, LINE = 860, 270, 118, 14, 12
COLUMN = 50  # of a figure


def read(path):
    """The ratios of each row and engine: {(case, remark): {engine: [ratio of each round]}}, and the number of rounds."""
    rates = {}
    with open(path, newline="") as file:
        for line in csv.DictReader(file):
            key = line["case"], line["peer"], line["round"]
            rates[key] = float(line["amount"]) / float(line["seconds"])
    ratios = defaultdict(lambda: defaultdict(list))
    for (case, peer, number), rate in rates.items():
        if peer in PEERS:
            raw, engine, remark = PEERS[peer]
            if (case, raw, number) in rates:
                ratios[case, remark][engine].append(rate / rates[case, raw, number])
    return ratios, len({number for _, _, number in rates})


def quartiles(values):
    """First quartile, median, third quartile; as the table of the benchmark has them."""
    if len(values) == 1:
        return values * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def ticks(low, high):
    steps = [0.1, 0.2, 0.3, 0.5, 0.65, 0.8, 1, 1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 24]
    return [step for step in steps if low <= step <= high]


def mark(shape, engine, x, y):
    if shape == "circle":
        return f'<circle class="{engine}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    if shape == "square":
        return f'<rect class="{engine}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    points = f"{x:.1f},{y - 5.5:.1f} {x + 5.5:.1f},{y:.1f} {x:.1f},{y + 5.5:.1f} {x - 5.5:.1f},{y:.1f}"
    return f'<polygon class="{engine}" points="{points}"/>'


def text(x, y, words, kind="", anchor="start"):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def draw(ratios, rounds):
    engines = [engine for engine in ENGINES if any(engine in row for row in ratios.values())]
    order = {case: place for place, case in enumerate(CASES)}
    rows = sorted(ratios, key=lambda row: (order.get(row[0], len(order)), row))
    figures = {row: {engine: quartiles(values) for engine, values in ratios[row].items()} for row in rows}
    all_figures = [figure for row in figures.values() for three in row.values() for figure in three]
    low, high = min(all_figures + [0.8]) * 0.95, max(all_figures + [1.5]) * 1.05
    right = WIDTH - 20 - COLUMN * len(engines)

    def place(ratio):
        return LEFT + (right - 12 - LEFT) * math.log(ratio / low) / math.log(high / low)

    # A row has a line for each engine that the chart has, so that marks do not cover one another.
    height_of_row = ROW + LINE * len(engines)
    bottom = TOP + height_of_row * len(rows)
    height = bottom + 44
    title = "sslfile beside the raw stream of the same TLS library"
    plural = "" if rounds == 1 else "s"
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        f"<title>{title}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
        text(20, 30, title, "title"),
        text(20, 50, f"Speed in proportion, over loopback; to the right of 1 is faster. Median and quartiles of {rounds} round{plural}.", "small"),
    ]
    x = 20
    for engine in engines:
        name, shape = ENGINES[engine]
        out += [mark(shape, engine, x + 5, 74), text(x + 16, 78, name, "small")]
        x += 40 + 6.1 * len(name)
    for tick in ticks(low, high):
        x = place(tick)
        kind = "base" if tick == 1 else "grid"
        out.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}"/>')
        out += [text(x, y, f"{tick:g}", "small", "middle") for y in (TOP - 12, bottom + 18)]
    for number, row in enumerate(rows):
        case, remark = row
        top = TOP + height_of_row * number
        middle = top + height_of_row / 2
        out.append(f'<line class="grid" x1="20" x2="{WIDTH - 20}" y1="{top}" y2="{top}"/>')
        label = CASES.get(case, case)
        if remark:
            out += [text(20, middle - 3, label), text(20, middle + 13, remark.removeprefix(", "), "small")]
        else:
            out.append(text(20, middle + 5, label))
        present = [engine for engine in engines if engine in figures[row]]
        for i, engine in enumerate(present):
            first, median, third = figures[row][engine]
            y = middle + LINE * (i - (len(present) - 1) / 2)
            words = f"{median:.2f}"
            tip = f"{label}{remark}, {ENGINES[engine][0]}: {words} ({first:.2f} to {third:.2f})"
            out += [
                f"<g><title>{escape(tip)}</title>",
                f'<line class="{engine} quartiles" x1="{place(first):.1f}" x2="{place(third):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>',
                mark(ENGINES[engine][1], engine, place(median), y),
                "</g>",
                text(right + COLUMN * (engines.index(engine) + 1) - 4, middle + 5, words, engine, "end"),
            ]
    out.append(f'<line class="grid" x1="20" x2="{WIDTH - 20}" y1="{bottom}" y2="{bottom}"/>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", help="what --csv has written")
    ratios, rounds = read(parser.parse_args().csv)
    if not ratios:
        sys.exit("no case with sslfile and the raw stream of the same library in one round")
    sys.stdout.write(draw(ratios, rounds))


if __name__ == "__main__":
    main()
