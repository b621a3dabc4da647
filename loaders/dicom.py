"""A DICOM radiograph: from the bytes of its file to upright grey levels, its patient and its view.

No tag is copied into a message, which ends in tables and on screens: what is quoted are numbers and the standard's own
terms.  The patient leaves this process only as a keyed hash (loaders/site_key.py).

What is refused rather than guessed, beside what the docstrings of dicom_format, dicom_pixels and dicom_grey say:
images for processing (PS3.3 section C.8.11.1.1.1), whose grey is the detector's; a presentation LUT shape that
contradicts the photometric interpretation (C.8.11.3.1.2); multi-frame images; modalities other than CR, DX and RG.
Pixel padding, overlays, shutters and the patient's orientation are not applied.
"""

# H rows, W columns, L stored values

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from kernels.grey import luma_into
from loaders.colour import colour_share
from loaders.dicom_elements import Dicom, quiet, read_dicom, text
from loaders.dicom_format import GREY, read_format
from loaders.dicom_grey import grey_table
from loaders.dicom_pixels import SYNTAXES, stored_values
from loaders.errors import RadiographError
from loaders.radiograph import DECODER_ERRORS, Radiograph
from loaders.radiograph_file import refuse

MODALITIES = ("CR", "DX", "RG")
OTHER_MODALITIES = (  # PS3.3 section C.7.3.1.1.1, those that a folder of radiographs may hold by mistake
    "CT", "MR", "US", "NM", "PT", "MG", "XA", "RF", "PX", "IO", "XC", "SC", "OT", "ES", "SR", "PR", "SEG", "KO", "DOC",
)  # fmt: skip
VIEWS = ("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO")  # defined terms of PS3.3 section C.8.7.1


def decode_dicom(data: bytes, max_pixels: int) -> Radiograph:
    """Read a whole DICOM file and give its grey levels as they are shown, larger is brighter.

    uint8, or uint16 where 8 bits would lose levels.  bits: 8 or 16, by the bits stored.  max_pixels: checked from
    the header, before anything is decoded.  patient: the patient ID as it stands; view: one of VIEWS or "".
    Errors: RadiographError, and nothing else, for whatever keeps this file from being used.
    Source: DICOM PS3.3, PS3.4 section N.2, PS3.5.
    """
    with quiet():
        try:
            dicom = read_dicom(data, SYNTAXES)
            check_kind(dicom.dataset)
            return shown_picture(dicom, max_pixels)
        except RadiographError:
            raise
        except DECODER_ERRORS as error:
            kind = type(error).__name__
        raise refuse(f"DICOM that does not decode ({kind})", "a whole image")  # its words might quote a tag


def check_kind(dataset: Dataset) -> None:
    """Errors: RadiographError for what is no radiograph, or not meant to be looked at."""
    modality = text(dataset, 0x00080060)
    if modality not in MODALITIES:
        name = f"modality {modality}" if modality in OTHER_MODALITIES else "another modality" if modality else "none"
        raise refuse(f"DICOM of {name}" if modality else "DICOM without a modality", "CR, DX or RG", "leave it out")
    if text(dataset, 0x00080068) == "FOR PROCESSING":
        raise refuse("DICOM for processing", "one for presentation", "export the processed image")


def shown_picture(dicom: Dicom, max_pixels: int) -> Radiograph:
    """The picture of any modality's single frame.  Errors: as decode_dicom, and what decoders raise on damage."""
    form = read_format(dicom, max_pixels)
    shape = text(dicom.dataset, 0x20500020)
    if shape and (shape == "INVERSE") != (form.photometric == "MONOCHROME1"):
        raise refuse(f"DICOM in {form.photometric} with another presentation LUT shape", "its own", "export it again")
    table_L, note = np.empty(0), ""
    if form.photometric in GREY:
        table_L, note = grey_table(
            dicom.dataset,
            stored=form.stored,
            signed=form.signed,
            inverted=form.photometric == "MONOCHROME1",
            little=dicom.little_endian,
        )
    values = stored_values(dicom, form)
    colour = 0.0
    if form.photometric in GREY:
        grey_HW = table_L[values]
    elif values.ndim == 2:
        grey_HW = values
    else:
        grey_HW = np.empty(values.shape[:2], np.uint8)
        luma_into(grey_HW, np.ascontiguousarray(values), 0, 2)
        colour = colour_share(values)
    view = text(dicom.dataset, 0x00185101)
    return Radiograph(
        grey_HW=np.require(grey_HW, requirements=["C", "W", "O"]),
        format="DICOM",
        bits=8 if form.stored <= 8 else 16,
        note=note,
        colour=colour,
        patient=text(dicom.dataset, 0x00100020),
        view=view if view in VIEWS else "",
    )
