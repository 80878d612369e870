"""Measure every method of the course for notebook 15's last page, into data/benchmark.

    uv run python data/make/store_overview.py [NET …]

About a quarter of an hour of CPU time for all nets; with names, only these are measured anew.
"""

import sys
import time

import pandas as pd

from vislib import nets
from vislib.data.coco import Coco
from vislib.measure import overview
from vislib.paths import DATA

# Scenes, and those that methods with many passes see. The page is about the first net. The last is
# here because CAM can explain it.
NETS = {
    "pocket_alexnet": (48, 16),
    "pocket_squeezenet": (24, 8),
    "pocket_resnet": (24, 8),
    "pocket_vgg": (24, 8),
    "pocket_gap": (24, 8),
}

if __name__ == "__main__":
    file, val = overview.MEASURED, Coco(DATA / "pocket_coco", "val")
    parts = dict(iter(pd.read_parquet(file).groupby("net"))) if file.exists() else {}
    for net in sys.argv[1:] or NETS:
        began, (count, few) = time.process_time(), NETS[net]
        parts[net] = overview.measure(net, overview.scenes(nets.load(net), val, count), max_scenes=few)
        stored = pd.concat([parts[name] for name in NETS if name in parts])
        stored.to_parquet(file, index=False, compression="zstd")
        print(f"{net}: {time.process_time() - began:.0f} s of CPU", flush=True)
