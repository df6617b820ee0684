"""Numbers as people write them, read by the conventions of the page's language."""

import pytest

from runtimed.browser.numerals import APART, RAISED, Unreadable, is_language, read_number


@pytest.mark.parametrize(
    ("text", "language", "number"),
    [
        ("1,299.50", None, 1299.5),
        ("1.299,50 €", None, 1299.5),
        ("12,5", None, 12.5),
        ("3.14159", None, 3.14159),
        ("1 234 567", None, 1234567),
        ("1'234.5", None, 1234.5),
        ("1’234.50", "de-CH", 1234.5),
        ("−40 °C", None, -40),
        ("-$5.20", "en", -5.2),
        ("$-5", "en", -5),
        ("about 5e3 of them", None, 5000),
        ("$1,299", None, 1299),
        ("1,024 ratings", None, 1024),
        ("1.299 Bewertungen", "de", 1299),
        ("12.345", "en", 12.345),
        ("12.345", "de", 12345),
        ("1.5 Zoll", "de", 1.5),
        (",89 €", None, 0.89),
        (".5", None, 0.5),
        ("$.99", "en", 0.99),
        ("1.299 €", None, 1299),
        ("€1,299", None, 1299),
        ("1.299,- €", "de", 1299),
        ("12,– €", "de", 12),
        ("1.299 KWD", "en", 1.299),
        ("1 299 €", "fr", 1299),
        ("1 299,00 €", "fr", 1299),
        ("15 128 avis", "fr", 15128),
        ("1\u202f234\u00a0€", "fr", 1234),
        ("12,34,567", "en-IN", 1234567),
        ("₹ 1,23,456.50", "hi", 123456.5),
        ("٣٤٫٥", "ar", 34.5),
        ("１，２９９円", "ja", 1299),
        ("1.2万", "ja", 12000),
        ("3.4K", "en", 3400),
        ("1.2k reviews", "en", 1200),
        ("2.5 million", "en", 2_500_000),
        ("1,2\u00a0Mio. Aufrufe", "de", 1_200_000),
        ("1万2000円", "ja", 12000),
        ("1亿2000万", "zh", 120_000_000),
        ("3만 5천원", None, 35000),
        ("1.2万人", "ja", 12000),
        ("$1.2 bn", "en", 1_200_000_000),
        ("$1.2m", "en", 1_200_000),
        ("$ 5 K", "en", 5000),
        ("5 m", "en", 5),
        ("12 T€", "de", 12_000),
        ("5 k€", "fr", 5000),
        ("3 MUSD", "en", 3_000_000),
        ("1.5w", "zh", 15_000),
        ("$(5.00)", "en", -5),
        ("5 min", "en", 5),
        ("2 Million", "en", 2_000_000),
        ("3 crores", "en-IN", 30_000_000),
        ("₹5 Cr", "en-IN", 50_000_000),
        ("1 dozen", "en", 12),
        ("2 Tsd.", "de", 2000),
        ("3,5 Mio €", "de", 3_500_000),
        ("6 Bio-Eier", "de", 6),
        ("2 Bio. €", "de", 2_000_000_000_000),
        ("3,5 Mio. €", None, 3_500_000),
        ("2 milliards", "fr", 2_000_000_000),
        ("2 Billionen", "de", 2_000_000_000_000),
        ("4.5 stars", "en", 4.5),
        ("128 GB", "en", 128),
        ("19 €", "en", 19),
        ("12 m²", "en", 12),
        ("($1,234.50)", "en", -1234.5),
        ("was ($5.00) now", "en", 5),
        ("(1,234)", "en", 1234),
        ("$1,299⁰⁰", "en", 1299),
        ("19⁹⁵ €", "de", 19.95),
        ("19€⁹⁵", "fr", 19.95),
        ("1 019€95 TTC", "fr", 1019.95),
        ("1.019,95 €¹²", "de", 1019.95),
        ("19 €¹", "de", 19),
        ("45 %", "en", 45),
        ("2½ cups", "en", 2.5),
        ("¾", None, 0.75),
        ("128GB", "en", 128),
        ("USD12.50", "en", 12.5),
        ("H2O", "en", 2),
        ("H2O: 18 g", "en", 18),
        ("4,5 Sterne", "de", 4.5),
        ("\u200e+7", None, 7),
        ("0.123", "de", 0.123),
    ],
)
def test_a_number_with_one_meaning(text, language, number):
    assert read_number(text, language=language, fallback="en-US") == number


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Prices", "is no number: 'Prices'"),
        ("1.2.3", "is no number: '1.2.3'"),
        (
            "iPhone 15 128 GB",
            "has 2 numbers, 15 and 128, in 'iPhone 15 128 GB'; "
            "say which with pick: 'first', 'last' or 'price', or narrow the selector",
        ),
        (
            "4.5 1,024 ratings",
            "has 2 numbers, 4.5 and 1,024, in '4.5 1,024 ratings'; "
            "say which with pick: 'first', 'last' or 'price', or narrow the selector",
        ),
        (
            "1-2 days",
            "has 2 numbers, 1 and 2, in '1-2 days'; "
            "say which with pick: 'first', 'last' or 'price', or narrow the selector",
        ),
        (
            "1.299 Bewertungen",
            "may be 1299 or 1.299: '1.299'; declare locale: 'de' for the one, locale: 'en' for the other",
        ),
        (
            "5€10€",
            "has 2 numbers, 5 and 10, in '5€10€'; "
            "say which with pick: 'first', 'last' or 'price', or narrow the selector",
        ),
        (
            "2 milliards",
            "runs on into a word that may be a scale, such as thousands or millions: '2 milliards'; "
            "declare the locale that knows it, or read it as string",
        ),
        (
            "1.2 M views",
            "runs on into a word that may be a scale, such as thousands or millions: '1.2 M views'; "
            "declare the locale that knows it, or read it as string",
        ),
        (
            "10⁶",
            "is 10 with a raised 6, in '10⁶', which may be a note, a power or part of the number; "
            "pick: 'first' gives 10",
        ),
        ("$1.299", "may be 1299 or 1.299: '1.299'; declare locale: 'de' for the one, locale: 'en' for the other"),
    ],
)
def test_what_has_not_one_meaning_is_refused_with_all_that_it_may_mean(text, says):
    with pytest.raises(Unreadable) as caught:
        read_number(text, fallback="en-US")

    assert str(caught.value) == says


@pytest.mark.parametrize("tag", ["en", "de", "fr", "pt-BR", "fr-CA"])
def test_a_french_phone_is_not_a_number_of_five_digits(tag):
    with pytest.raises(Unreadable, match="has 2 numbers, 15 and 128"):
        read_number("iPhone 15 128 Go", language=tag, fallback="en-US")


@pytest.mark.parametrize(
    ("text", "pick", "number"),
    [
        ("iPhone 15 128 GB", "first", 15),
        ("iPhone 15 128 GB", "last", 128),
        ("iPhone 15 128 GB, 799 €", "price", 799),
        ("4.5 1,024 ratings", "first", 4.5),
        ("4.5 1,024 ratings", "last", 1024),
        ("Save 20 %: now £39.99", "price", 39.99),
        ("19.99 € 12 left", "price", 19.99),
        ("3 für 2: 12,99 EUR", "price", 12.99),
        ("$10 - $20", "last", 20),
        ("£12.50 – £15", "last", 15),
        ("USD 10 − USD 20", "last", 20),
        ("10 - 20 €", "last", 20),
        ("Milk - $2", "first", 2),
        ("Now $5. Balance: - $20", "last", -20),
        ("$5, discount -$20", "last", -20),
    ],
)
def test_one_of_several_numbers_is_picked_by_the_hint(text, pick, number):
    assert read_number(text, language="en", pick=pick) == number


def test_another_number_of_the_text_tells_its_conventions():
    assert read_number("4.5 1,024 ratings", language="de", pick="last") == 1024


def test_a_price_that_is_written_twice_is_one():
    assert read_number(f"$19.99\n$19{RAISED}99", language="en") == 19.99
    assert read_number(f"2 for $19.99\n$19{RAISED}99", language="en", pick="price") == 19.99


def test_a_price_is_not_cut_where_its_digits_are_raised_or_apart():
    with pytest.raises(Unreadable, match=r"is 3\.45 with a raised 9"):
        read_number(f"$3.45{RAISED}9", language="en", pick="price")
    with pytest.raises(Unreadable, match="has 2 prices, 19 and 99"):
        read_number(f"19{APART}99 €", language="en", pick="price")
    assert read_number(f"$3.45{RAISED}9", language="en", pick="first") == 3.45


def test_two_prices_are_not_one():
    with pytest.raises(Unreadable) as caught:
        read_number("Was $49.99, now $39.99", language="en", pick="price")

    assert str(caught.value) == (
        "has 2 prices, 49.99 and 39.99, in 'Was $49.99, now $39.99'; say which with pick: 'first' or 'last', "
        "or narrow the selector"
    )
    with pytest.raises(Unreadable, match="is no price: '15 items'"):
        read_number("15 items", language="en", pick="price")


@pytest.mark.parametrize(("text", "number"), [("12.345", 12345), ("1.299 Bewertungen", 1299), ("5.00", 5), ("7", 7)])
@pytest.mark.parametrize("language", [None, "en", "de"])
def test_whole_numbers_have_groups_and_no_decimals(text, number, language):
    value = read_number(text, language=language, whole=True)

    assert (value, type(value)) == (number, int)


def test_a_whole_number_with_decimals_is_refused_and_not_cut():
    with pytest.raises(Unreadable, match=r"is no whole number: 4\.5; declare it as number"):
        read_number("4.5", language="en", whole=True)


def test_a_declared_language_decides():
    assert read_number("$3.459", declared="en", language="de", fallback="de") == 3.459
    assert read_number("12.345", declared="de", language="en", fallback="en") == 12345
    assert is_language("de-AT")
    assert is_language("de-XY")
    assert not is_language("german")
