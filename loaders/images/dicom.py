"""A DICOM file as a radiograph: its kind checked, its stored values mapped to the grey that a screen shows."""

# H rows, W columns, L stored values as bit patterns, E entries of a LUT, V windows

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_windowing

from kernels.decoding import luma_into
from loaders.errors import RadiographError
from loaders.images.dicom_elements import MODALITY_LUTS, VOI_LUTS, Dicom, decimals, items, quiet, raw, read_dicom, text
from loaders.images.dicom_pixels import GREY, SYNTAXES, Format, read_format, stored_values
from loaders.images.files import DECODER_ERRORS, Radiograph, colour_share, refuse

MODALITIES = ("CR", "DX", "RG")
OTHER_MODALITIES = (  # PS3.3 section C.7.3.1.1.1, those that a folder of radiographs may hold by mistake
    "CT", "MR", "US", "NM", "PT", "MG", "XA", "RF", "PX", "IO", "XC", "SC", "OT", "ES", "SR", "PR", "SEG", "KO", "DOC",
)  # fmt: skip
VIEWS = ("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO")  # defined terms of PS3.3 section C.8.7.1


def decode_dicom(data: bytes, max_pixels: int) -> Radiograph:
    """Read a whole DICOM file and give its grey levels as shown on a screen, larger is brighter.

    uint8, or uint16 where 8 bits would lose levels.  bits: 8 or 16, by the bits stored.  max_pixels: checked from
    the header, before anything is decoded.  patient: the patient ID, unchanged; view: one of VIEWS or "".
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
        raise refuse(f"DICOM that does not decode ({kind})", "a whole image")  # its message might quote a tag


def check_kind(dataset: Dataset) -> None:
    """Errors: RadiographError for what is no radiograph, or not meant for viewing."""
    modality = text(dataset, 0x00080060)
    if modality not in MODALITIES:
        name = f"modality {modality}" if modality in OTHER_MODALITIES else "another modality"
        raise refuse(f"DICOM of {name}" if modality else "DICOM without a modality", "CR, DX or RG", "other-modality")
    if text(dataset, 0x00080068) == "FOR PROCESSING":
        raise refuse("DICOM for processing", "one for presentation", "for-processing")


def shown_picture(dicom: Dicom, max_pixels: int) -> Radiograph:
    """The picture of any modality's single frame.  Errors: as decode_dicom, and what decoders raise on damage."""
    form = read_format(dicom, max_pixels)
    shape = text(dicom.dataset, 0x20500020)
    if shape and (shape == "INVERSE") != (form.photometric == "MONOCHROME1"):
        raise refuse(f"DICOM in {form.photometric} with another presentation LUT shape", "its own", "dicom-header")
    table_L, note = np.empty(0), ""
    if form.photometric in GREY:
        table_L, note = grey_table(dicom, form)
    values, colour = stored_values(dicom, form), 0.0
    if form.photometric in GREY:
        grey_HW = table_L[values]
    elif values.ndim == 2:
        grey_HW = values
    else:
        grey_HW = np.empty(values.shape[:2], np.uint8)
        luma_into(grey_HW, np.ascontiguousarray(values), 0, 2)
        colour = colour_share(values)
    view = text(dicom.dataset, 0x00185101)
    grey_HW = np.require(grey_HW, requirements=["C", "W", "O"])
    return Radiograph(
        grey_HW=grey_HW, format="DICOM", bits=8 if form.stored <= 8 else 16, note=note, colour=colour,
        patient=text(dicom.dataset, 0x00100020), view=view if view in VIEWS else "",
    )  # fmt: skip


def grey_table(dicom: Dicom, form: Format) -> tuple[np.ndarray, str]:
    """The shown grey of each pattern of the stored bits, black 0 to white 255 or 65535, and a note.

    Modality LUT or rescale, then VOI LUT or window, then the inversion of MONOCHROME1 (PS3.4 section N.2).  Gives
    uint8 (L,) if at most 8 bits are stored and all levels stay distinct, else uint16 (L,).
    The standard does not rank alternatives (PS3.3 section C.11.2): the first VOI LUT is taken, else the first window,
    with a note.  Without either the whole range is shown.
    Errors: RadiographError for a mapping that would have to be guessed.
    """
    stored, pattern_L = form.stored, np.arange(1 << form.stored)
    negative_L = pattern_L >> (stored - 1) & form.signed
    level_L = (pattern_L - (negative_L << stored)).astype(np.float64)
    shown_L, note = voi(dicom.dataset, modality(dicom.dataset, level_L, dicom.little), dicom.little)
    if form.photometric == "MONOCHROME1":
        shown_L = 1 - shown_L
    fine_L = np.rint(shown_L * 65535).astype(np.uint16)
    coarse_L = np.rint(shown_L * 255).astype(np.uint8)
    if stored <= 8 and len(np.unique(coarse_L)) == len(np.unique(fine_L)):
        return coarse_L, note
    return fine_L, note


def modality(dataset: Dataset, level_L: np.ndarray, little: bool) -> np.ndarray:
    """Stored values in the units of the modality: by one LUT, or a slope with an intercept (PS3.3 section C.11.1)."""
    tables = items(dataset, MODALITY_LUTS, "modality LUT")
    slope = decimals(dataset, 0x00281053, "rescale slope")
    intercept = decimals(dataset, 0x00281052, "rescale intercept")
    if tables and (slope or intercept):
        raise refuse("DICOM with both a modality LUT and a rescale slope", "one of them", "mapping")
    if len(tables) > 1:
        raise refuse(f"DICOM with {len(tables)} modality LUTs", "one", "mapping")
    if tables:
        return look_up(tables[0], level_L, little, "modality LUT")[0]
    if (slope or intercept) and (len(slope) != 1 or len(intercept) != 1 or slope[0] == 0):
        raise refuse("DICOM without one slope, not 0, and one intercept", "both or neither", "mapping")
    return apply_modality_lut(level_L, dataset)


def voi(dataset: Dataset, level_L: np.ndarray, little: bool) -> tuple[np.ndarray, str]:
    """Shown levels from 0 to 1, and a note.  PS3.3 section C.11.2."""
    tables = items(dataset, VOI_LUTS, "VOI LUT")
    center_V = decimals(dataset, 0x00281050, "window center")
    width_V = decimals(dataset, 0x00281051, "window width")
    if len(center_V) != len(width_V):
        raise refuse(f"DICOM with {len(center_V)} window centers and {len(width_V)} widths", "pairs", "mapping")
    if tables:
        shown_L, top = look_up(tables[0], level_L, little, "VOI LUT")
        others = f"{len(tables)} VOI LUTs" * (len(tables) > 1) or "VOI LUT and window" * bool(center_V)
        return shown_L / top, f"first of {others}" if others else ""
    if center_V:
        function = text(dataset, 0x00281056) or "LINEAR"
        note = f"first of {len(center_V)} windows" if len(center_V) > 1 else ""
        return window(level_L, center_V[0], width_V[0], function), note
    lowest, highest = level_L.min(), level_L.max()
    if not highest > lowest:
        raise refuse("DICOM whose modality values are all the same", "several", "mapping")
    return (level_L - lowest) / (highest - lowest), ""


def window(level_L: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """A window from 0 to 1: LINEAR, LINEAR_EXACT or SIGMOID of PS3.3 sections C.11.2.1.2 and C.11.2.1.3, by pydicom."""
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        expected = "LINEAR, LINEAR_EXACT or SIGMOID"
        raise refuse("DICOM with an unknown VOI LUT function", expected, "mapping", "export it with one of these")
    if width <= 0 or (function == "LINEAR" and width < 1):
        least = "at least 1" if function == "LINEAR" else "more than 0"
        raise refuse(f"DICOM with a {function} window of width {width:g}", least, "mapping")
    # pydicom's output range is that of the stored bits, so 0 to 1 for one; it would turn round with a negative slope
    one_bit = Dataset()
    one_bit.PhotometricInterpretation, one_bit.PixelRepresentation, one_bit.BitsStored = "MONOCHROME2", 0, 1
    one_bit.WindowCenter, one_bit.WindowWidth, one_bit.VOILUTFunction = center, width, function
    return apply_windowing(level_L, one_bit)


def look_up(item: Dataset, level_L: np.ndarray, little: bool, name: str) -> tuple[np.ndarray, int]:
    """The entry of each level in a LUT, levels outside it taking the nearest end; and the largest possible entry.

    PS3.3 sections C.11.1.1 and C.11.2.1.1: the descriptor has the number of entries (0: 65536), the first level, in
    two's complement where levels may be negative, and the bits of an entry, 8 to 16.
    Not by pydicom 3.0: its apply_voi wraps levels beyond an 8-bit LUT around, and truncates fractional ones.
    """
    order = "<" if little else ">"
    descriptor, data = raw(item, 0x00283002), raw(item, 0x00283006)
    if len(descriptor) != 6:
        raise refuse(f"DICOM with a {name} without descriptor", "three numbers", "mapping")
    num_entries, first, bits = np.frombuffer(descriptor, order + "u2").tolist()
    num_entries = num_entries or 65536
    kind = item.get_item(0x00283002).VR
    if first >= 32768 and (kind == "SS" or (kind != "US" and level_L.min() < 0)):
        first -= 65536
    if len(data) == 2 * num_entries:
        entry_E = np.frombuffer(data, order + "u2")
    elif bits == 8 and len(data) == num_entries + num_entries % 2 and little:
        entry_E = np.frombuffer(data, np.uint8)[:num_entries]
    else:
        raise refuse(f"DICOM with a {name} of {len(data)} bytes", f"{num_entries} entries of {bits} bits", "mapping")
    if not 8 <= bits <= 16 or int(entry_E.max()) >> bits:
        raise refuse(f"DICOM with a {name} of {bits} bits and values up to {entry_E.max()}", "8 to 16 bits", "mapping")
    place_L = np.clip(np.rint(level_L) - first, 0, num_entries - 1).astype(np.int64)
    return entry_E[place_L].astype(np.float64), (1 << bits) - 1
