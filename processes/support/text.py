"""Reading plain text: order numbers, amounts, links, placeholders, language. Pure, and linear in the text's length."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from functools import lru_cache

ORDER_NUMBERS_MAX = 3
READ_CHARACTERS_MAX = 20_000
"""More of a text than this is not searched; the rules hold texts that are longer."""

_ORDER_WORDS = "order|purchase|bestellung|bestellnummer|auftrag|commande|pedido|ordine|bestelling"
_ORDER = re.compile(
    rf"\b(?:{_ORDER_WORDS})\s{{0,3}}(?:number|no\.?|nr\.?|nummer|numero|id|code)?[\s:#]{{0,4}}(?:is\s)?((?:[a-z]{{1,4}}-?)?\d{{4,18}})\b"
    r"|#\s?((?:[a-z]{1,4}-?)?\d{4,18})\b"
    r"|\b(?!inv-)([a-z]{2,4}-\d{4,12})\b",
    re.IGNORECASE,
)
_NUMBER = r"\d{1,3}(?:[.,' ]\d{3}){1,4}(?:[.,]\d{1,2})?|\d{1,12}(?:[.,]\d{1,2})?"
_SIGN = r"[$¢-¥֏؋৲৳৻૱௹฿៛₠-⃀]"
_CODE = "eur|usd|gbp|chf|jpy|cny|inr|cad|aud|nzd|sek|nok|dkk|pln|czk"
_CURRENCY = rf"{_SIGN}|{_CODE}|euros?|dollars?|pounds?|francs?|kr|zł|%|percent"
_AMOUNT = re.compile(
    rf"(?:{_SIGN}|\b(?:{_CODE}))\s{{0,3}}-?({_NUMBER})(?!\d)"
    rf"|(?<![\d.,])({_NUMBER})\s{{0,3}}(?:{_CURRENCY})(?![a-z])",
    re.IGNORECASE,
)
_LINK = re.compile(
    r"(?:[a-z][a-z0-9+.-]{1,10}://|www\.)[^\s<>()\[\]\"']{1,500}"
    r"|[a-z0-9._%+-]{1,64}@[a-z0-9.-]{1,250}"
    r"|\b(?:[\w-]{1,63}[.。]){1,5}(?:xn--[a-z0-9-]{1,59}|[^\W\d_]{2,18})\b(?:/[^\s<>()\[\]\"']{0,500})?"
    r"|\b\d{1,3}(?:\.\d{1,3}){3}\b(?:[:/][^\s<>()\[\]\"']{0,500})?",
    re.IGNORECASE,
)
_LONG_NUMBER = re.compile(r"(?<![\w])\+?\d(?:[ ()/.-]{0,2}\d){6,24}(?!\w)")
_PLACEHOLDER = re.compile(
    r"\{\{?[^{}\n]{0,80}\}?\}|\[[A-Z][A-Za-z _'-]{1,60}\](?!\()"
    r"|<[A-Za-z/][^<>\n]{0,80}>|\bX{3,}\b|_{3,}|\bTODO\b|\bTBD\b"
)
_STOPWORDS = {
    "en": "the and you your is are to of my i have what how please with for this that it not can do order where when",
    "de": "der die das und ich nicht ist sie mein meine bitte wie wo wann haben habe mit für ein eine auf zu den ihr",
    "fr": "le la les et je vous est pas mon ma votre pour une un des avec que où quand comment suis bonjour merci",
    "es": "el los las y es no mi su para una un por que con dónde cuándo cómo quiero hola gracias pedido del está",
    "it": "il lo gli e non è mio mia per una un che con dove quando come vorrei ciao grazie ordine della sono ho",
    "nl": "de het een en ik niet is mijn u uw voor met van waar wanneer hoe graag bestelling heb kan dit dat wil",
    "pt": "o os as e não é meu minha para uma um por que com onde quando como quero olá obrigado pedido da está eu",
}
_LANGUAGES_OF = {
    word: tuple(code for code, words in _STOPWORDS.items() if word in words.split())
    for word in " ".join(_STOPWORDS.values()).split()
}
_WORD = re.compile(r"[^\W\d_]+")
_LANGUAGE_WORDS_MIN = 3
_LANGUAGE_LEAD_MIN = 2
_GAP = r"\W+(?:\w+\W+){0,3}"
_INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


def plain(text: str) -> str:
    """For comparing only: lower case, one form per letter, no invisible characters, one space between words."""
    return " ".join(_as_seen(text[:READ_CHARACTERS_MAX]).casefold().split())


def _as_seen(text: str) -> str:
    """What a reader sees: one form per letter, digit and sign, and nothing that is not shown."""
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))


def order_numbers(text: str) -> tuple[str, ...]:
    """What a customer calls an order number, in the order of the text, at most ORDER_NUMBERS_MAX."""
    found = ("".join(filter(None, m.groups())).upper() for m in _ORDER.finditer(text[:READ_CHARACTERS_MAX]))
    return tuple(dict.fromkeys(found))[:ORDER_NUMBERS_MAX]


def amounts(text: str) -> frozenset[Decimal]:
    """Numbers that stand beside a currency or a percent sign."""
    return frozenset(number(m[1] or m[2]) for m in _AMOUNT.finditer(_as_seen(text)))


def number(text: str) -> Decimal:
    """`1,234.50`, `1.234,50`, `1 234` and `1234.5` as a number. Raises ValueError."""
    digits = re.sub(r"[ ']", "", text)
    point = max(digits.rfind("."), digits.rfind(","))
    whole, cents = (digits, "") if point < 0 or len(digits) - point - 1 > 2 else (digits[:point], digits[point + 1 :])  # noqa: PLR2004  # cents have two digits
    try:
        return Decimal(f"{re.sub(r'[.,]', '', whole)}.{cents or 0}").normalize()
    except InvalidOperation as error:
        raise ValueError("no number") from error


def links(text: str) -> frozenset[str]:
    """Web and mail addresses, lower case, without the punctuation that ends a sentence."""
    return frozenset(m[0].casefold().rstrip(".,;:!?/").removeprefix("www.") for m in _LINK.finditer(_as_seen(text)))


def long_numbers(text: str) -> frozenset[str]:
    """Telephone, account and order numbers: runs of seven digits and more, their digits alone."""
    return frozenset(re.sub(r"\D", "", m[0]) for m in _LONG_NUMBER.finditer(_as_seen(text)))


def has_placeholder(text: str) -> bool:
    """Whether something was left to fill in: `{{…}}`, `[NAME]`, `<…>`, `XXX`."""
    return _PLACEHOLDER.search(text) is not None


def language(text: str) -> str | None:
    """ISO 639-1 code by the commonest little words; none where the text is too short or too mixed to tell."""
    words = _WORD.findall(text[:READ_CHARACTERS_MAX].casefold())
    scores = Counter(code for word in words for code in _LANGUAGES_OF.get(word, ()))
    (code, best), (_, second) = (*scores.most_common(2), ("", 0), ("", 0))[:2]
    return code if best >= _LANGUAGE_WORDS_MIN and best - second >= _LANGUAGE_LEAD_MIN else None


def says(text: str, phrases: Iterable[str]) -> bool:
    """Whether a `plain` text holds one of the phrases, as whole words; `*` in a phrase stands for up to three words."""
    pattern = _any_of(tuple(phrases))
    return pattern is not None and pattern.search(text) is not None


@lru_cache(maxsize=64)
def _any_of(phrases: tuple[str, ...]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(_pattern, phrases))) if phrases else None


def _pattern(phrase: str) -> str:
    parts = [re.escape(part.strip()) for part in plain(phrase).split("*")]
    return rf"(?<!\w){_GAP.join(parts)}(?!\w)"
