"""What is said of image files that cannot be read, whoever finds it out."""

from __future__ import annotations

from pathlib import Path

from ..errors import ImageError


def unreadable(path: Path) -> ImageError:
    """For a file that its reader does not understand."""
    return ImageError(f"{path} cannot be read as an image; it may be damaged or incomplete.")


def many_axes(path: Path, found: object) -> ImageError:
    """For a file of more axes than a volume with channels has, or of fewer than a plane."""
    return ImageError(f"{path} has {found!s:.20} axes, expected 2, 3 or 4; save one volume a file.")


def require_few_axes(path: Path, axes: int) -> None:
    """Raise ImageError for a file of more than three axes and channels."""
    if axes > 4:
        raise many_axes(path, axes)
