"""A DICOM file as a radiograph: its kind checked, its stored values mapped to the grey that a screen shows."""

# H rows, W columns, L stored values as bit patterns, E entries of a LUT, V windows

import math

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing
from pydicom.uid import UID_dictionary

from kernels.decoding import histogram_into, luma_into
from loaders.config import Modality
from loaders.errors import RadiographError
from loaders.images.dicom_elements import MODALITY_LUTS, VOI_LUTS, Dicom, decimals, items, quiet, raw, read_dicom, text
from loaders.images.dicom_pixels import GREY, SYNTAXES, Format, read_format, stored_values
from loaders.images.files import DECODER_ERRORS, Radiograph, colour_share, refuse

MODALITIES = ("CR", "DX", "RG")
VAGUE = ("", "OT", "RF", "SC")  # modalities that a SOP class of CR or DX outweighs, as it does unknown ones
IMAGES = "1.2.840.10008.5.1.4.1.1."  # prefix of SOP classes
SOP_CLASSES = {f"{IMAGES}1": "CR", f"{IMAGES}1.1": "DX", f"{IMAGES}1.1.1": "DX"}
FOR_PROCESSING, SECONDARY_CAPTURE = f"{IMAGES}1.1.1", f"{IMAGES}7."
OTHER_MODALITIES = (  # PS3.3 section C.7.3.1.1.1, those that a folder of radiographs may hold by mistake
    "CT", "MR", "US", "NM", "PT", "MG", "XA", "RF", "PX", "IO", "XC", "SC", "OT", "ES", "SR", "PR", "SEG", "KO", "DOC",
)  # fmt: skip
VIEWS = ("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO")  # defined terms of PS3.3 section C.8.7.1


def decode_dicom(data: bytes, max_pixels: int, assume_modality: Modality = "none") -> Radiograph:
    """Read a whole DICOM file and give its grey levels as shown on a screen, larger is brighter.

    uint8, or uint16 where 8 bits would lose levels.  bits: 8 or 16, by the bits stored.  max_pixels: checked from
    the header, before anything is decoded.  assume_modality: of a file that states none, or OT.
    patient, sex, age: unchanged; view: one of VIEWS or "".  note: how an unusual file was understood.
    Errors: RadiographError, and nothing else, for whatever keeps this file from being used.
    Source: DICOM PS3.3, PS3.4 section N.2, PS3.5.
    """
    with quiet():
        try:
            dicom = read_dicom(data, SYNTAXES)
            check_kind(dicom, assume_modality)
            return shown_picture(dicom, max_pixels)
        except RadiographError:
            raise
        except DECODER_ERRORS as error:
            kind = type(error).__name__
        raise refuse(f"DICOM that does not decode ({kind})", "a whole image")  # its message might quote a tag


def check_kind(dicom: Dicom, assume_modality: Modality = "none") -> None:
    """Errors: RadiographError for what is no radiograph, or not meant for viewing."""
    modality, sop_class = text(dicom.dataset, 0x00080060).upper(), text(dicom.dataset, 0x00080016)
    of_any_kind = sop_class not in UID_dictionary or f"{sop_class}.".startswith(SECONDARY_CAPTURE)
    known = modality in OTHER_MODALITIES
    if modality in MODALITIES:
        pass
    elif modality == "DR":
        dicom.notes.append("modality DR taken as DX")
    elif sop_class in SOP_CLASSES and (modality in VAGUE or not known):
        dicom.notes.append(f"modality {SOP_CLASSES[sop_class]} by the SOP class")
    elif assume_modality != "none" and modality in ("", "OT") and of_any_kind:
        dicom.notes.append(f"modality {assume_modality} assumed")
    else:
        name = f"of modality {modality}" if known else "of another modality" if modality else "without a modality"
        expected = "CR, DX or RG, or a SOP class (0008,0016) of CR or DX images"
        remedy = "" if modality not in ("", "OT") else "if it is a radiograph, give --assume-modality DX"
        raise refuse(f"DICOM {name} (0008,0060)", expected, "other-modality", remedy)
    if text(dicom.dataset, 0x00080068) == "FOR PROCESSING" or sop_class == FOR_PROCESSING:
        raise refuse("DICOM for processing (0008,0068)", "one for presentation", "for-processing")


def shown_picture(dicom: Dicom, max_pixels: int) -> Radiograph:
    """The picture of any modality's single frame.  Errors: as decode_dicom, and what decoders raise on damage.

    Photometric Interpretation alone decides which end is black: Presentation LUT Shape has to agree (PS3.3 sections
    C.7.6.3.1.2 and C.8.11.3.1.2), and many writers leave it IDENTITY.
    """
    form = read_format(dicom, max_pixels)
    shape = text(dicom.dataset, 0x20500020)
    if shape and (shape == "INVERSE") != (form.photometric == "MONOCHROME1"):
        dicom.notes.append(f"Presentation LUT Shape ignored, {form.photometric} counts")
    if any(rows in dicom.dataset for rows in range(0x60000010, 0x60200010, 0x20000)):
        dicom.notes.append("overlay not drawn")
    values, colour = stored_values(dicom, form), 0.0
    if form.photometric in GREY:
        grey_HW = grey_table(dicom, form, values)[values]
    elif values.ndim == 2:
        grey_HW = values
    else:
        grey_HW = np.empty(values.shape[:2], np.uint8)
        luma_into(grey_HW, np.ascontiguousarray(values), 0, 2)
        colour = colour_share(values)
    view = text(dicom.dataset, 0x00185101)
    grey_HW = np.require(grey_HW, requirements=["C", "W", "O"])
    return Radiograph(
        grey_HW=grey_HW, format="DICOM", bits=8 if form.stored <= 8 else 16, note="; ".join(dicom.notes),
        colour=colour, patient=text(dicom.dataset, 0x00100020), sex=text(dicom.dataset, 0x00100040),
        age=text(dicom.dataset, 0x00101010), view=view if view in VIEWS else "",
    )  # fmt: skip


def grey_table(dicom: Dicom, form: Format, values: np.ndarray) -> np.ndarray:
    """The shown grey of each pattern of the stored bits, black 0 to white 255 or 65535.

    Modality LUT or rescale, then VOI LUT or window, then the inversion of MONOCHROME1 (PS3.4 section N.2).  Gives
    uint8 (L,) if at most 8 bits are stored and all levels stay distinct, else uint16 (L,).
    Padding (PS3.3 section C.7.5.1.1.2) is black.  values: the image's patterns, needed where padding is declared.
    Errors: RadiographError for a mapping that would have to be guessed.
    """
    stored, pattern_L = form.stored, np.arange(1 << form.stored)
    negative_L = pattern_L >> (stored - 1) & form.signed
    stored_L = (pattern_L - (negative_L << stored)).astype(np.float64)
    padding_L, counted_L = padding(dicom, form, stored_L), np.ones(len(pattern_L), bool)
    if padding_L.any():
        count_L = np.empty(1 << 8 * values.itemsize, np.int64)
        histogram_into(count_L, np.ascontiguousarray(values))
        occurs_L = count_L[: len(pattern_L)] > 0
        if (padding_L & occurs_L).any():
            counted_L = occurs_L & ~padding_L
            dicom.notes.append("padding shown black")
        if not counted_L.any():
            raise refuse("DICOM all of its Pixel Padding Value (0028,0120)", "a picture", "one-level")
    shown_L = voi(dicom, modality(dicom, stored_L), counted_L)
    if form.photometric == "MONOCHROME1":
        shown_L = 1 - shown_L
    shown_L[padding_L] = 0
    fine_L = np.rint(shown_L * 65535).astype(np.uint16)
    coarse_L = np.rint(shown_L * 255).astype(np.uint8)
    return coarse_L if stored <= 8 and len(np.unique(coarse_L)) == len(np.unique(fine_L)) else fine_L


def padding(dicom: Dicom, form: Format, stored_L: np.ndarray) -> np.ndarray:
    """Which stored values are padding: one, or a range that includes its limits, in either order; bool (L,)."""
    ends = [raw(dicom.dataset, tag) for tag in (0x00280120, 0x00280121)]
    if len(ends[0]) != 2:
        return np.zeros(len(stored_L), bool)
    kind = ("<" if dicom.little else ">") + "ui"[form.signed] + "2"
    levels = [int(np.frombuffer(end, kind)[0]) for end in ends if len(end) == 2]
    return (stored_L >= min(levels)) & (stored_L <= max(levels))


def modality(dicom: Dicom, stored_L: np.ndarray) -> np.ndarray:
    """Stored values in the units of the modality: by one LUT, else by slope and intercept (PS3.3 section C.11.1).

    A LUT excludes rescaling there, so where both are given the LUT counts.  A missing slope is 1, an intercept 0.
    """
    tables = items(dicom, MODALITY_LUTS)
    slope, intercept = ([n for n in decimals(dicom, tag) if math.isfinite(n)] for tag in (0x00281053, 0x00281052))
    if len(tables) > 1:
        raise refuse(f"DICOM with {len(tables)} modality LUTs (0028,3000)", "one", "mapping")
    if tables:
        if slope or intercept:
            dicom.notes.append("modality LUT, not rescale")
        return look_up(tables[0], stored_L, dicom.little, "modality LUT (0028,3000)")[0]
    if len(slope) > 1 or len(intercept) > 1 or slope == [0]:
        found = f"{len(slope)} slopes (0028,1053) and {len(intercept)} intercepts (0028,1052)"
        found = "a rescale slope (0028,1053) of 0" if slope == [0] else found
        raise refuse(f"DICOM with {found}", "one slope other than 0 and one intercept", "mapping")
    if len(slope) != len(intercept):
        dicom.notes.append("no rescale intercept, taken as 0" if slope else "no rescale slope, taken as 1")
    return stored_L * (slope or [1])[0] + (intercept or [0])[0]


def voi(dicom: Dicom, level_L: np.ndarray, counted_L: np.ndarray) -> np.ndarray:
    """Shown levels from 0 to 1: by the first VOI LUT, else the first window that is one, else the whole range.

    counted_L: which levels make up the whole range.  The standard does not rank alternatives (PS3.3 section C.11.2).
    """
    tables = items(dicom, VOI_LUTS)
    center_V, width_V = decimals(dicom, 0x00281050), decimals(dicom, 0x00281051)
    windows, function = max(len(center_V), len(width_V)), text(dicom.dataset, 0x00281056).upper() or "LINEAR"
    if tables:
        shown_L, top = look_up(tables[0], level_L, dicom.little, "VOI LUT (0028,3010)")
        if others := f"{len(tables)} VOI LUTs" * (len(tables) > 1) or "VOI LUT and window" * bool(windows):
            dicom.notes.append(f"first of {others}")
        return shown_L / top
    if windows:
        if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
            found, expected = "DICOM with an unknown VOI LUT function (0028,1056)", "LINEAR, LINEAR_EXACT or SIGMOID"
            raise refuse(found, expected, "mapping", "export it with one of these")
        pairs = list(zip(center_V, width_V, strict=False))
        linear = function == "LINEAR"
        valid = [math.isfinite(center) and (width >= 1 if linear else width > 0) for center, width in pairs]
        if any(valid):
            if windows > 1:
                dicom.notes.append(f"first {'' if valid[0] else 'valid '}of {windows} windows")
            return window(level_L, *pairs[valid.index(True)], function)
        dicom.notes.append("no valid window (0028,1050), whole range shown")
    lowest, highest = level_L[counted_L].min(), level_L[counted_L].max()
    if not highest > lowest:
        raise refuse("DICOM whose modality values are all the same", "several", "mapping")
    return np.clip((level_L - lowest) / (highest - lowest), 0, 1)


def window(level_L: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """A window from 0 to 1: LINEAR, LINEAR_EXACT or SIGMOID of PS3.3 sections C.11.2.1.2 and C.11.2.1.3, by pydicom."""
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
        raise refuse(f"DICOM with a {name} without LUT Descriptor (0028,3002)", "three numbers", "mapping")
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
