"""Sex and age: each spelling of tables and DICOM files is read as meant, or as unknown."""

import pytest

from loaders.beton.format import AGES, SEXES
from loaders.cautions import caution
from loaders.convert.demographics import age_code, demographics_caution, sex_code

SPELLED = {
    "female": "F f Female FEMALE female. Woman W w weiblich Femme",
    "male": "M m Male MALE man Mann männlich homme",
    "other": "O other divers d X",
    "": "0 1 2 1.0 U unknown NA ? - MF F/M fem\udce9 yes h",
}


@pytest.mark.parametrize(("sex", "text"), [(sex, text) for sex, texts in SPELLED.items() for text in texts.split()])
def test_a_sex_is_read_as_meant_and_a_number_is_not_guessed(sex: str, text: str) -> None:
    assert SEXES[sex_code(text)] == SEXES[sex_code(f" {text}\t")] == sex


AGED = {  # texts between commas
    "0-9": "0.5, 1, 9, 9.99, 009Y, 018M, 018m, 006W, 010D, 3650D, 18 weeks, 3 weeks old, 5 days, 0-9, 0-4, 5 – 9",
    "10-19": "10, 019Y, 19.9, 120M, 10-19",
    "50-59": "58, 58.0, 058, 058Y, 58Y, 58y, 58 years, 58 yrs, 58 y.o., 58 y/o, 58yo, 58 years old, 50-59, 21354D",
    "80-89": "80, 89, 089Y, 89.9",
    "90 and above": "90, 090Y, 104, 120, 90+, 90+Y, >89, >=90, ≥90, 91+, over 90, 90 and above, 90 or older, 90-99",
    "": ", 0, 0.0, 000Y, 000, 411, 148, -3, 121, -1, 45M, 60m, 1962, 2020-03-01, 80+, >88, 40+, <90, 45-55, 0-0, 58-,"
    " 5x, 5_8, ٥٨, NaN, inf, 1e1, adult, ?, 58Z, 58\\60, 58Y58Y, 999Y, 999999D, unknown",
}


@pytest.mark.parametrize(
    ("decade", "text"), [(decade, text) for decade, texts in AGED.items() for text in texts.split(",")]
)
def test_an_age_is_read_as_its_decade_and_unknown_where_it_has_none(decade: str, text: str) -> None:
    assert AGES[age_code(text)] == decade


def test_an_age_may_have_a_decimal_comma() -> None:
    assert AGES[age_code("58,5")] == "50-59"


def test_the_caution_counts_the_patients_of_the_rarest_combination_and_not_their_images() -> None:
    images = [(1, 6, "a", 0), (1, 6, "a", 1), (1, 6, "a", 2), (2, 0, "a", 3), (2, 0, "a", 4), (0, 0, "b", 5)]
    assert demographics_caution(images) == caution("demographics-kept", sexes=5, ages=3, images=6, patients=2)
    elsewhere = [*images, (1, 6, "b", 6), (1, 6, "b", 6)]  # two images of one patient
    assert demographics_caution(elsewhere) == caution("demographics-kept", sexes=7, ages=5, images=8, patients=1)
    assert demographics_caution([(0, 0, "a", 0)]) == caution("no-demographics", images=1)
