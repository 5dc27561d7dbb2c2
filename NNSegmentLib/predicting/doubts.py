"""What the headers of cases leave in doubt: looked at as each case is read, said once after all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..grids.stray_channels import channels_apart_mm, tell_apart
from ..grids.two_places import TwoPlaces, tell_two_places, two_places
from ..image import file_ending, read_geometry
from ..image_files.nifti import NIFTI_ENDINGS
from ..machine.memory import Say
from ..task import Case


@dataclass(frozen=True)
class Doubts:
    """Those of one case."""

    apart_mm: float
    """How far its channels lie apart."""
    two_places: Mapping[str, TwoPlaces]
    """By the names of the files whose headers tell them."""


def doubts_of(case: Case, reader: str) -> Doubts:
    """From the headers alone, of a case whose files were found to be readable together; raises ImageError."""
    volumes = [path for path in case.images if file_ending(path) in NIFTI_ENDINGS]
    found = {path.name: two_places(path, read_geometry(path)) for path in volumes}
    return Doubts(channels_apart_mm(case.images, reader), {name: places for name, places in found.items() if places})


def tell_doubts(doubts: Mapping[str, Doubts], say: Say) -> None:
    """One sentence for each kind of doubt, of all cases by their ids."""
    tell_apart({case_id: of_case.apart_mm for case_id, of_case in doubts.items()}, say)
    tell_two_places({name: found for of_case in doubts.values() for name, found in of_case.two_places.items()}, say)
