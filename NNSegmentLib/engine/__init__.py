"""Networks, training and prediction: the only room that imports torch."""

import gc
import importlib
import sys
from concurrent.futures import ThreadPoolExecutor

from ..packages import require_package


def _load_torch() -> None:
    """Import torch and keep Python's collector from looking through its many objects again and again.

    They live as long as the process. Predicting 60 small cases took 10.5 s with those looks and 9.2 s without. The thread
    keeps our callers out of that: torch catches errors while it loads, and what is kept of one are the functions that
    were at work, with all that they hold later, such as a model's weights. Ctrl-C is heard when it has loaded.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with ThreadPoolExecutor(1) as loading:
            loading.submit(importlib.import_module, "torch").result()
    finally:
        if collecting:
            gc.enable()
    gc.freeze()


if not sys.modules.get("torch"):  # else it is the program's, which may have plans of its own
    require_package("torch")
    _load_torch()
