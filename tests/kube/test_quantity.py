"""Quantities, compared with the results of the parser of apimachinery."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gke_sandbox.kube.quantity import Quantity, QuantityError, parse_quantity

NANO = 10**9


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0", 0),
        ("1", NANO),
        ("500m", NANO // 2),
        ("1u", 1000),
        ("1n", 1),
        ("2k", 2 * 10**12),
        ("2M", 2 * 10**15),
        ("2G", 2 * 10**18),
        ("2T", 2 * 10**21),
        ("2P", 2 * 10**24),
        ("2E", 2 * 10**27),
        ("2Ki", 2 * NANO << 10),
        ("2Mi", 2 * NANO << 20),
        ("2Gi", 2 * NANO << 30),
        ("2Ti", 2 * NANO << 40),
        ("2Pi", 2 * NANO << 50),
        ("2Ei", 2 * NANO << 60),
        ("1.5", NANO * 3 // 2),
        ("0.5Mi", NANO << 19),
        (".5Mi", NANO << 19),
        ("1.", NANO),
        ("1.Gi", NANO << 30),
        ("1e3", 1000 * NANO),
        ("1E3", 1000 * NANO),
        ("1e+3", 1000 * NANO),
        ("1E-3", NANO // 1000),
        ("1.5e1", 15 * NANO),
        ("+1", NANO),
        ("-1", -NANO),
        ("-1.5Ki", -1536 * NANO),
        ("0001", NANO),
        ("0.000000001", 1),
    ],
)
def test_every_notation_is_parsed_exactly(text: str, nano: int) -> None:
    assert parse_quantity(text).nano == nano


@pytest.mark.parametrize("text", [".", "-", "+", "0.0", "0Ki", "-0", "0e99999", "000"])
def test_these_texts_are_zero_as_on_the_server(text: str) -> None:
    assert parse_quantity(text).nano == 0


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0.1n", 1),
        ("1.0000000001", NANO + 1),
        ("-0.1n", -1),
        ("1e-20", 1),
        ("1e-99999", 1),
        ("0.0000000001Ki", 103),
    ],
)
def test_fractions_of_a_billionth_are_rounded_away_from_zero(text: str, nano: int) -> None:
    assert parse_quantity(text).nano == nano


def test_binary_quantities_are_capped_at_63_bits() -> None:
    assert parse_quantity("99999Ei").value == (1 << 63) - 1
    assert parse_quantity("-99999Ei").value == -((1 << 63) - 1)
    assert parse_quantity("99999E").value == 99999 * 10**18


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        " 1",
        "1 ",
        "1\n",
        "1.1.M",
        "1+1.0M",
        "0.1am",
        "aoeu",
        "1_000",
        "0x10",
        "١",
        "1Mib",
        "1g",
        "--1.0x",
        "5 Mi",
    ],
)
def test_invalid_text_has_the_error_message_of_the_server(text: str) -> None:
    with pytest.raises(QuantityError, match=r"^quantities must match the regular expression '\^\("):
        parse_quantity(text)


@pytest.mark.parametrize(
    "text",
    ["1i", "1mi", "0.1mi", ".5i", "-3.01i", "-3.01e-", "1e", "1e+", "1K", "1Mm", "1m3", "1e9" + "9" * 20],
)
def test_an_unknown_suffix_has_the_error_message_of_the_server(text: str) -> None:
    with pytest.raises(QuantityError, match=r"^unable to parse quantity's suffix$"):
        parse_quantity(text)


@pytest.mark.parametrize("text", ["1e257", "1e999999999", "1" * 257])
def test_a_huge_quantity_is_rejected_without_computing_it(text: str) -> None:
    with pytest.raises(QuantityError, match="256"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"),
        ("0Mi", "0"),
        ("1.5", "1500m"),
        ("0.5", "500m"),
        ("1000m", "1"),
        ("2000", "2k"),
        ("1500", "1500"),
        ("1500k", "1500k"),
        ("2000M", "2G"),
        ("1.5Gi", "1536Mi"),
        ("1024Mi", "1Gi"),
        ("1024", "1024"),
        ("0.5Ki", "512"),
        ("1000Ki", "1000Ki"),
        ("1025Ki", "1025Ki"),
        ("0.1Ki", "102400m"),
        ("0.1Gi", "107374182400m"),
        ("-1024Mi", "-1Gi"),
        ("-1500m", "-1500m"),
        ("12e6", "12e6"),
        ("1.5e3", "1500"),
        ("1e2", "100"),
        ("1e-1", "100e-3"),
        ("1e4", "10e3"),
        ("100u", "100u"),
        ("0.1n", "1n"),
        ("+05", "5"),
        ("1000E", "1000E"),
    ],
)
def test_the_string_is_the_canonical_form(text: str, canonical: str) -> None:
    quantity = parse_quantity(text)
    assert str(quantity) == canonical
    assert parse_quantity(canonical).nano == quantity.nano


@pytest.mark.parametrize(
    ("text", "value", "milli"),
    [
        ("500m", 1, 500),
        ("100u", 1, 1),
        ("1.0001", 2, 1001),
        ("-500m", -1, -500),
        ("-1.0001", -2, -1001),
        ("3", 3, 3000),
    ],
)
def test_integers_and_thousandths_are_rounded_away_from_zero(text: str, value: int, milli: int) -> None:
    quantity = parse_quantity(text)
    assert (quantity.value, quantity.milli) == (value, milli)
    assert quantity.rounded_to_milli().nano == milli * NANO // 1000


@pytest.mark.parametrize(
    ("left", "right", "total"),
    [("64Mi", "64Mi", "128Mi"), ("1G", "1Mi", "1001048576"), ("0", "1Mi", "1Mi"), ("1Gi", "512Mi", "1536Mi")],
)
def test_a_sum_has_the_notation_of_its_first_operand(left: str, right: str, total: str) -> None:
    assert str(parse_quantity(left) + parse_quantity(right)) == total


@given(
    st.from_regex(r"[+-]?[0-9]{1,20}(\.[0-9]{0,12})?", fullmatch=True),
    st.sampled_from(
        ["n", "u", "m", "", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3", "E-4"]
    ),
)
def test_the_canonical_form_is_exact_and_stable(number: str, suffix: str) -> None:
    quantity = parse_quantity(number + suffix)
    canonical = str(quantity)
    again = parse_quantity(canonical)
    assert again.nano == quantity.nano
    assert str(again) == canonical
    assert "." not in canonical


@given(st.text(alphabet="0123456789.+-eEinumkKMGTP ", max_size=12))
def test_any_text_is_a_quantity_or_an_error(text: str) -> None:
    try:
        quantity = parse_quantity(text)
    except QuantityError:
        return
    assert isinstance(quantity, Quantity)
