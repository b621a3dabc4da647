"""Sex and age of patients: as tables and DICOM files write them, and what `--keep-demographics` keeps of them."""

import re
from collections import defaultdict
from collections.abc import Hashable, Sequence

from loaders.beton.format import AGES, SEXES
from loaders.cautions import Caution, caution

SPELLINGS = {  # of each sex, in small letters; O is DICOM's (PS3.3 section C.7.1.1)
    "female": (
        "f", "female", "w", "woman", "women", "girl", "weiblich", "frau", "femme", "feminin", "féminin", "femenino",
        "feminino", "femmina", "mujer",
    ),
    "male": (
        "m", "male", "man", "men", "boy", "männlich", "maennlich", "mann", "homme", "masculin", "masculino", "maschio",
        "hombre",
    ),
    "other": ("o", "other", "d", "divers", "diverse", "x", "intersex", "non-binary", "nonbinary"),
}  # fmt: skip
SEX_OF = {spelling: SEXES.index(sex) for sex, spellings in SPELLINGS.items() for spelling in spellings}
AGE = re.compile(
    r"(?P<least>>=?|≥|over)? ?(?P<first>\d{1,6}([.,]\d+)?)( ?[-–] ?(?P<last>\d{1,3}))?"
    r" ?(?P<plus>\+|(and|or) (above|over|older|more))?"
    r" ?(?P<unit>y|yrs?|years?|y[./]?o|m|mos?|months?|w|wks?|weeks?|d|days?)?( old)?\.?",
    re.ASCII,
)
IN_A_YEAR = {"y": 1.0, "m": 12.0, "w": 365.25 / 7, "d": 365.25}  # of each unit, by its first letter
OLDEST = 120  # years; NIH has 411


def sex_code(text: str) -> int:
    """The place in SEXES; 0 for what is not plainly a sex.  Numbers are not guessed: their meaning differs by table."""
    return SEX_OF.get(text.strip().strip(".").casefold(), 0)


def age_code(text: str) -> int:
    """The place in AGES of 58, 58.0, 058Y, 018M (DICOM PS3.5, AS), 50-59, 90+ and >89; 0 for what has no one decade.

    0 is unknown: tables and devices write it where no age was given (CheXpert); of infants they give months or days.
    """
    match = AGE.fullmatch(" ".join(text.casefold().split()))
    if match is None or (match["unit"] == "m" and len(match["first"]) != 3):  # 45M may be a man of 45
        return 0
    unit = IN_A_YEAR[(match["unit"] or "y")[0]]
    first = float(match["first"].replace(",", ".")) / unit
    last = int(match["last"]) / unit if match["last"] else first
    if match["least"] or match["plus"]:  # of one decade only in the last
        least = first + (match["least"] in (">", "over"))
        return len(AGES) - 1 if 90 <= least <= OLDEST else 0
    if not 0 < last <= OLDEST:
        return 0
    codes = {1 + min(int(age) // 10, 9) for age in (first, last)}
    return codes.pop() if len(codes) == 1 else 0


def demographics_caution(images: Sequence[tuple[int, int, str, int]]) -> Caution:
    """Of how many images sex and age are kept, and of how many patients the rarest combination with a source is.

    images: sex, age, source and group (patient) of each.
    """
    groups: dict[Hashable, set[int]] = defaultdict(set)
    for sex, age, source, group in images:
        if sex or age:
            groups[sex, age, source].add(group)
    if not groups:
        return caution("no-demographics", images=len(images))
    sexes, ages = (sum(1 for image in images if image[place]) for place in (0, 1))
    rarest = min(map(len, groups.values()))
    return caution("demographics-kept", sexes=sexes, ages=ages, images=len(images), patients=rarest)
