"""The network is blocked in all tests, and in all processes that are started from here, and
test workers share the machine's cores, instead of each taking them all.

This stands at the root, so that it also holds where only notebooks are tested.
"""

import os
import runpy
import sys
from pathlib import Path

OFFLINE = Path(__file__).parent / "tests" / "offline"
if str(OFFLINE) not in sys.path:
    runpy.run_path(str(OFFLINE / "sitecustomize.py"))
    sys.path.append(str(OFFLINE))
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(OFFLINE), os.environ.get("PYTHONPATH")))
    )

# Before torch is imported. Kernels and browsers that a worker starts inherit it. The process that
# starts the workers sets nothing, for they would inherit that too: two threads each on two cores
# wait for one another more than they compute.
if (workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT")) is not None:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))
