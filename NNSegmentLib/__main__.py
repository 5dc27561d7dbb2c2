"""`python -m NNSegmentLib` is the command line."""

import platform
import sys

if sys.version_info < (3, 11):  # noqa: UP036  pip would not let it in, but Slicer's users choose their Python freely
    sys.exit(f"nnsegment: Expected Python 3.11 or newer, found {platform.python_version()}; use a newer one.")

try:
    from .cli import main
except KeyboardInterrupt:  # before anything was done
    sys.exit(130)

sys.exit(main())
