"""The network is blocked in all tests, and in all processes that are started from here.

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
