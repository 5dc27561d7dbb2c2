"""DICOM series and DICOM SEG objects for tests, every attribute written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from NNSegmentLib.geometry import Geometry

CT, SEG, LABELMAP_SEG = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
INTERCEPT = -1024


def item(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def code(value: str, meaning: str) -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator="SCT", CodeMeaning=meaning)


def written(path: Path, dataset: Dataset, sop_class: str, compress: bool = False) -> Dataset:
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if compress:
        dataset.compress(RLELossless, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def lps(vector) -> list[float]:
    return [round(float(v), 6) for v in np.asarray(vector) * (-1, -1, 1)]


def frame_place(geometry: Geometry, z: int, shear=(0.0, 0.0, 0.0)) -> dict:
    """Where plane z lies: (position, orientation, pixel spacing) in DICOM's words; `shear` (RAS, mm) is added per plane."""
    direction = np.array(geometry.direction)
    return {
        "position": lps(geometry.world((z, 0, 0))[0] + z * np.asarray(shear)),
        "orientation": [*lps(direction[:, 0]), *lps(direction[:, 1])],
        "spacing": [geometry.spacing_mm[1], geometry.spacing_mm[2]],
    }


def ct_series(folder: Path, array: np.ndarray, geometry: Geometry, shear=(0.0, 0.0, 0.0), **changes) -> list[Dataset]:
    """A CT whose stored values become `array` (Z, Y, X) by the rescale intercept; file names say nothing of the order."""
    uid, frame_of_reference, written_files = generate_uid(), generate_uid(), []
    compress = changes.pop("compress", False)
    for z in range(len(array)):
        place = frame_place(geometry, z, shear)
        dataset = item(
            Modality="CT", SeriesInstanceUID=uid, StudyInstanceUID=generate_uid(), FrameOfReferenceUID=frame_of_reference,
            PatientID="P 7", ImagePositionPatient=place["position"], ImageOrientationPatient=place["orientation"],
            PixelSpacing=place["spacing"], SliceThickness=9.0, Rows=array.shape[1], Columns=array.shape[2],
            SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", BitsAllocated=16, BitsStored=16, HighBit=15,
            PixelRepresentation=0, RescaleSlope=1, RescaleIntercept=INTERCEPT,
        )  # fmt: skip
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.PixelData = (array[z] - INTERCEPT).astype("<u2").tobytes()
        written_files.append(written(folder / f"{(7 * z) % 31:03d}", dataset, CT, compress))
    return written_files


def enhanced_ct(path: Path, array: np.ndarray, geometry: Geometry, order, rescaling) -> list[Dataset]:
    """The planes of `array` (Z, Y, X; stored values) in `order` as frames of one file, each with its (slope, intercept)."""
    place = frame_place(geometry, 0)
    dataset = item(
        Modality="CT", SeriesInstanceUID=generate_uid(), StudyInstanceUID=generate_uid(), PatientID="P 7",
        FrameOfReferenceUID=generate_uid(), Rows=array.shape[1], Columns=array.shape[2], NumberOfFrames=len(order),
        SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", BitsAllocated=16, BitsStored=16, HighBit=15,
        PixelRepresentation=0,
    )  # fmt: skip
    dataset.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[item(PixelSpacing=place["spacing"], SliceThickness=9.0)],
            PlaneOrientationSequence=[item(ImageOrientationPatient=place["orientation"])],
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=frame_place(geometry, z)["position"])],
            PixelValueTransformationSequence=[
                item(RescaleSlope=rescaling[z][0], RescaleIntercept=rescaling[z][1], RescaleType="US")
            ],
        )
        for z in order
    ]
    dataset.PixelData = array[list(order)].astype("<u2").tobytes()
    return [written(path, dataset, ENHANCED_CT)]


def segment(number: int, name: str, lab=(41661, 41167, 40792)) -> Dataset:
    made = item(SegmentNumber=number, SegmentLabel=name, SegmentAlgorithmType="MANUAL")
    made.RecommendedDisplayCIELabValue = list(lab)
    made.SegmentedPropertyCategoryCodeSequence = [code("123037004", "Anatomical Structure")]
    made.SegmentedPropertyTypeCodeSequence = [code("10200004", "Liver")]
    made.AnatomicRegionSequence = [code("69536005", "Head")]
    return made


def seg(
    path: Path, frames, geometry: Geometry, series, names, *, kind="BINARY", shear=(0.0, 0.0, 0.0), **changes
) -> Dataset:
    """A segmentation of `frames` (plane z, segment number, mask Y X) in the order given; the series need not have all planes."""
    place = frame_place(geometry, 0)
    dataset = item(
        Modality="SEG", SeriesInstanceUID=generate_uid(), StudyInstanceUID=generate_uid(), SegmentationType=kind,
        FrameOfReferenceUID=series[0].FrameOfReferenceUID, Rows=frames[0][2].shape[0], Columns=frames[0][2].shape[1],
        SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", PixelRepresentation=0, NumberOfFrames=len(frames),
        SegmentSequence=[segment(number, name) for number, name in names.items()],
    )  # fmt: skip
    dataset.ReferencedSeriesSequence = [
        item(
            SeriesInstanceUID=series[0].SeriesInstanceUID,
            ReferencedInstanceSequence=[item(ReferencedSOPInstanceUID=one.SOPInstanceUID) for one in series],
        )
    ]
    measures = item(PixelSpacing=place["spacing"], SliceThickness=9.0)
    dataset.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[measures],
            PlaneOrientationSequence=[item(ImageOrientationPatient=place["orientation"])],
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=frame_place(geometry, z, shear)["position"])],
            **({} if kind == "LABELMAP" else {"SegmentIdentificationSequence": [item(ReferencedSegmentNumber=number)]}),
        )
        for z, number, _ in frames
    ]
    bits = 1 if kind == "BINARY" else 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    data = np.stack([mask for _, _, mask in frames]).astype(np.uint8)
    packed = (np.packbits(data.ravel(), bitorder="little") if bits == 1 else data.ravel()).tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    compress = changes.pop("compress", False)
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return written(path, dataset, LABELMAP_SEG if kind == "LABELMAP" else SEG, compress)
