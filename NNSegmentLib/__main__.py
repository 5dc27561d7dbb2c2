"""`python -m NNSegmentLib` is the command line."""

import os
import sys


def _forget_working_directory():
    """Python searches it first, where a module beside somebody's images would run in place of the one that is meant."""
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        here = os.getcwd()
    except OSError:  # it was deleted
        return
    if here != ours and sys.path[:1] in ([here], [""]):
        del sys.path[0]


if sys.version_info < (3, 11):  # noqa: UP036  pip would not let it in, but Slicer's users choose their Python freely
    sys.exit(f"nnsegment: Expected Python 3.11 or newer, found {sys.version.split()[0]}; use a newer one.")

if not sys.flags.safe_path:
    _forget_working_directory()

try:
    from .cli import main
except KeyboardInterrupt:  # before anything was done
    sys.exit(130)

sys.exit(main())
