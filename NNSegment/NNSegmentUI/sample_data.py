"""Sample data of Slicer's module Sample Data, made on this computer: phantom heads with a mass."""

from __future__ import annotations

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

CATEGORY = "NNSegment"
TRAINING_CASES = 10
TEN_HEADS, ELEVENTH_HEAD = "NNSegmentTenHeads", "NNSegmentEleventhHead"
_ICONS = Path(__file__).resolve().parents[1] / "Resources" / "Icons"


def register_sample_data() -> None:
    """Offer the phantoms in the module Sample Data; nothing is made before somebody asks for it."""
    from SampleData import SampleDataLogic

    if hasattr(SampleDataLogic, "registerCustomSampleDataCategory"):  # Slicer 5.12
        SampleDataLogic.registerCustomSampleDataCategory(CATEGORY, title=_("NNSegment"))
    for name, picture, load in (
        (TEN_HEADS, "NNSegmentTenHeads.png", load_ten_heads),
        (ELEVENTH_HEAD, "NNSegmentEleventhHead.png", load_eleventh_head),
    ):
        SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=name,
            thumbnailFileName=str(_ICONS / picture),
            uris="made on this computer",
            fileNames=name,
            nodeNames=name,
            customDownloader=load,
        )


def load_ten_heads(_source=None) -> list:
    """Ten volumes, each with a segmentation of the mass: what a task is made of. Returns all nodes."""
    nodes = []
    with slicer.util.tryWithErrorDisplay(_("The phantoms cannot be made."), waitCursor=True):
        for index in range(TRAINING_CASES):
            slicer.util.showStatusMessage(_("Phantom {n} of {total}").format(n=index + 1, total=TRAINING_CASES))
            nodes += load_head(index)
            slicer.app.processEvents(qt.QEventLoop.ExcludeUserInputEvents)  # no click may close the scene meanwhile
    slicer.util.showStatusMessage("")
    return nodes


def load_eleventh_head(_source=None) -> list:
    """A volume without a segmentation, to apply a model to. Returns it in a list."""
    with slicer.util.tryWithErrorDisplay(_("The phantom cannot be made."), waitCursor=True):
        return load_head(TRAINING_CASES, with_segmentation=False)


def load_head(index: int, with_segmentation: bool = True) -> list:
    """Phantom number `index` as a volume node, and its segmentation node."""
    from NNSegmentLib.colors import colored
    from NNSegmentLib.prediction import Prediction
    from NNSegmentLib.sample import SAMPLE_LABELS, make_phantom
    from NNSegmentLib.scene import show_prediction

    phantom, name = make_phantom(index), f"Head {index + 1}"
    array = phantom.image.round().astype("int16")
    volume = slicer.util.addVolumeFromArray(array, ijkToRAS=phantom.geometry.ijk_to_ras, name=name)
    if not with_segmentation:
        return [volume]
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} segmentation")
    segmentation.CreateDefaultDisplayNodes()
    truth = Prediction(phantom.labels, phantom.geometry, colored(SAMPLE_LABELS))
    return [volume, show_prediction(truth, volume, segmentation)]
