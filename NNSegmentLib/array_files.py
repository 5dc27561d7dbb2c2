"""What numpy raises for files of arrays that are damaged or something else; their headers are read as Python."""

from __future__ import annotations

import tokenize
import zipfile
import zlib

DAMAGED = (
    OSError, ValueError, KeyError, TypeError, OverflowError, EOFError, SyntaxError, RuntimeError, tokenize.TokenError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""RuntimeError stands for what zip files may ask for: passwords, other ways of compression."""
