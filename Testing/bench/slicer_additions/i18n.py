"""Translation functions of Slicer's interface; the bench shows the texts as written."""

from pathlib import Path


def tr(text):
    return text


def translate(context, text):
    return text


def getContext(sourceFile):
    """The name under which the texts of a file are translated: with its folder's, where that is a package."""
    path = Path(sourceFile)
    return f"{path.parent.name}.{path.stem}" if (path.parent / "__init__.py").is_file() else path.stem
