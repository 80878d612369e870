"""Measure every method of the course for the table at the end of notebook 15.

    uv run python data/make/store_overview.py [NETWORK …]

The script writes data/benchmark/overview.parquet. All networks take about a quarter of an hour of
CPU time; with names, only these networks are measured again.
"""

from __future__ import annotations

import sys
import time

import pandas as pd

from vislib import nets
from vislib.data.coco import Coco
from vislib.measure import overview
from vislib.paths import DATA

# The number of scenes, and the number of scenes for methods with many passes. The table shows the
# first network. The last network is included because CAM can explain it.
NETS = {
    "emoji_alexnet": (48, 16),
    "emoji_squeezenet": (24, 8),
    "emoji_resnet": (24, 8),
    "emoji_vgg": (24, 8),
    "emoji_gap": (24, 8),
}

if __name__ == "__main__":
    file, val = overview.MEASURED, Coco(DATA / "emoji_coco", "val")
    parts = dict(iter(pd.read_parquet(file).groupby("net"))) if file.exists() else {}
    for net in sys.argv[1:] or NETS:
        began, (count, few) = time.process_time(), NETS[net]
        parts[net] = overview.measure(
            net, overview.scenes(nets.load(net), val, count), max_scenes=few
        )
        stored = pd.concat([parts[name] for name in NETS if name in parts])
        stored.to_parquet(file, index=False, compression="zstd")
        print(f"{net}: {time.process_time() - began:.0f} s of CPU", flush=True)
