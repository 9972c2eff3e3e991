"""Reading plain text: order numbers, amounts, links, placeholders, language. Pure, and linear in the text's length.

Most texts hold nothing of what is looked for, so each reader first asks for something that every find must contain: a
sign of it costs about a tenth of looking for it.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from itertools import chain

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
_FOUR_DIGITS = re.compile(r"\d\d{3}")
_NUMBER = r"\d{1,3}(?:[.,' ]\d{3}){1,4}(?:[.,]\d{1,2})?|\d{1,12}(?:[.,]\d{1,2})?"
_SIGN = r"[$¢-¥֏؋৲৳৻૱௹฿៛₠-⃀]"
_CODE = "eur|usd|gbp|chf|jpy|cny|inr|cad|aud|nzd|sek|nok|dkk|pln|czk"
_CURRENCY = rf"{_SIGN}|{_CODE}|euros?|dollars?|pounds?|francs?|kr|zł|%|percent"
_AMOUNT = re.compile(
    rf"(?:{_SIGN}|\b(?:{_CODE}))\s{{0,3}}-?({_NUMBER})(?!\d)"
    rf"|(?<![\d.,])({_NUMBER})\s{{0,3}}(?:{_CURRENCY})(?![a-z])",
    re.IGNORECASE,
)
_GAPS = ("", r"[\s-]", r"\s[\s-]", r"\s\s[\s-]", r"\s\s\s-")
_PRICED = re.compile(
    rf"\d(?:\s{{0,3}}(?:{_CURRENCY})|{'|'.join(rf'(?<={_SIGN}{gap}.)|(?<=(?:{_CODE}){gap}.)' for gap in _GAPS)})",
    re.IGNORECASE,
)
"""A digit with a currency right behind or before it."""
_LINK = re.compile(
    r"(?:[a-z][a-z0-9+.-]{1,10}://|www\.)[^\s<>()\[\]\"']{1,500}"
    r"|[a-z0-9._%+-]{1,64}@[a-z0-9.-]{1,250}"
    r"|\b(?:[\w-]{1,63}[.。]){1,5}(?:xn--[a-z0-9-]{1,59}|[^\W\d_]{2,18})\b(?:/[^\s<>()\[\]\"']{0,500})?"
    r"|\b\d{1,3}(?:\.\d{1,3}){3}\b(?:[:/][^\s<>()\[\]\"']{0,500})?",
    re.IGNORECASE,
)
_PERHAPS_LINKS = re.compile(r"(?<!\S)[^\s.。@:]*+[.。@:]\S+")
"""What stands between two spaces and has a sign inside that every link has."""
_LONG_NUMBER = re.compile(r"(?<![\w])\+?\d(?:[ ()/.-]{0,2}\d){6,24}(?!\w)")
_SEVEN_DIGITS = re.compile(r"\d(?:[ ()/.-]{0,2}\d){6}")
_PLACEHOLDER = re.compile(
    r"\{\{?[^{}\n]{0,80}\}?\}|\[[A-Z][A-Za-z _'-]{1,60}\](?!\()"
    r"|<[A-Za-z/][^<>\n]{0,80}>|\bX{3,}\b|_{3,}|\bTODO\b|\bTBD\b"
)
_IN_A_PLACEHOLDER = ("{", "[", "<", "XXX", "___", "TODO", "TBD")
_STOPWORDS = {
    "en": """the and you your is are to of my i have what how please with for this that it not can do order where when
        me a an in on at from be was were will would could should has had am we they he she there here who why which
        want need help get about but or if so no yes any been did does don't just its out up than then them our us""",
    "de": """der die das und ich nicht ist sie mein meine bitte wie wo wann haben habe mit für ein eine auf zu den ihr
        es dem des im in von an bei aus nach zum zur mir mich wir uns kann können möchte will wird werden wurde bin war
        noch mehr schon nur auch aber oder wenn dass was warum wer kein keine einen einem einer meinen meiner meinem
        bestellung hallo guten danke bleibt lange über am""",
    "fr": """le la les et je vous est pas mon ma votre pour une un des avec que où quand comment suis bonjour merci
        de du ne me plus en au aux ce cette ces mes il elle nous se sur dans par qui quoi y ai avez avoir être fait
        faire veux voudrais peux pouvez puis commande sont était mais ou donc si très bien moi toujours depuis""",
    "es": """el los las y es no mi su para una un por que con dónde cuándo cómo quiero hola gracias pedido del está
        la de en me se lo al qué mis tu yo he ha han hay estoy puedo puede quisiera necesito tengo fue ser son pero si
        sí más ya sin muy buenas buenos días favor hago va cuánto este esta ese eso le les nos último""",
    "it": """il lo gli e non è mio mia per una un che con dove quando come vorrei ciao grazie ordine della sono ho
        la le di del dei in mi si ma se da al alla nel nella più questo questa miei mie posso può hanno ha stato
        buongiorno ancora arrivato perché cosa quanto anche ci vi""",
    "nl": """de het een en ik niet is mijn u uw voor met van waar wanneer hoe graag bestelling heb kan dit dat wil
        je jullie op te in aan er bij nog naar om maar of als zijn was wordt worden mij me wij we hallo dank bedankt
        blijft geen wel wat waarom al ook""",
    "pt": """o os as e não é meu minha para uma um por que com onde quando como quero olá obrigado pedido da está eu
        a de do em no na me se mais ainda mas ou já muito bom dia isso este esta foi ser são tenho tem posso pode
        gostaria favor meus minhas ao""",
}
_LANGUAGES_OF = {
    word: tuple(code for code, words in _STOPWORDS.items() if word in words.split())
    for word in " ".join(_STOPWORDS.values()).split()
}
_WORD = re.compile(r"[^\W\d_]+")
_LETTERS_ALONE = str.maketrans({c: " " for c in map(chr, range(128)) if not c.isalpha()})
_LANGUAGE_WORDS_MIN = 3
_LANGUAGE_LEAD_MIN = 2
_GAP = r"\W+(?:\w+\W+){0,3}"
_INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


def plain(text: str) -> str:
    """For comparing only: lower case, one form per letter, no invisible characters, one space between words."""
    return " ".join(_as_seen(text[:READ_CHARACTERS_MAX]).casefold().split())


def _as_seen(text: str) -> str:
    """What a reader sees: one form per letter, digit and sign, and nothing that is not shown."""
    return text if text.isascii() else _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))


def order_numbers(text: str) -> tuple[str, ...]:
    """What a customer calls an order number, in the order of the text, at most ORDER_NUMBERS_MAX."""
    read = text[:READ_CHARACTERS_MAX]
    if _FOUR_DIGITS.search(read) is None:
        return ()
    found = ("".join(filter(None, m.groups())).upper() for m in _ORDER.finditer(read))
    return tuple(dict.fromkeys(found))[:ORDER_NUMBERS_MAX]


def amounts(text: str) -> frozenset[Decimal]:
    """Numbers that stand beside a currency or a percent sign."""
    seen = _as_seen(text)
    if _PRICED.search(seen) is None:
        return frozenset()
    return frozenset(number(m[1] or m[2]) for m in _AMOUNT.finditer(seen))


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
    found = (m[0].casefold() for perhaps in _PERHAPS_LINKS.findall(_as_seen(text)) for m in _LINK.finditer(perhaps))
    return frozenset(link.rstrip(".,;:!?/").removeprefix("www.") for link in found)


def long_numbers(text: str) -> frozenset[str]:
    """Telephone, account and order numbers: runs of seven digits and more, their digits alone."""
    seen = _as_seen(text)
    if _SEVEN_DIGITS.search(seen) is None:
        return frozenset()
    return frozenset(re.sub(r"\D", "", m[0]) for m in _LONG_NUMBER.finditer(seen))


def has_placeholder(text: str) -> bool:
    """Whether something was left to fill in: `{{…}}`, `[NAME]`, `<…>`, `XXX`."""
    return any(sign in text for sign in _IN_A_PLACEHOLDER) and _PLACEHOLDER.search(text) is not None


def language(text: str) -> str | None:
    """ISO 639-1 code by the commonest little words; none where the text is too short or too mixed to tell."""
    read = text[:READ_CHARACTERS_MAX].casefold()
    words = read.translate(_LETTERS_ALONE).split() if read.isascii() else _WORD.findall(read)
    scores = Counter(chain.from_iterable(filter(None, map(_LANGUAGES_OF.get, words))))
    (code, best), (_, second) = (*scores.most_common(2), ("", 0), ("", 0))[:2]
    return code if best >= _LANGUAGE_WORDS_MIN and best - second >= _LANGUAGE_LEAD_MIN else None


def says(text: str, phrases: Iterable[str]) -> bool:
    """Whether a `plain` text holds one of the phrases, as whole words; `*` in a phrase stands for up to three words."""
    perhaps = [pattern for begins, pattern in _patterns(tuple(phrases)) if begins in text]
    return any(pattern.search(text) is not None for pattern in perhaps)


@lru_cache(maxsize=64)
def _patterns(phrases: tuple[str, ...]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Of each phrase how it begins, and all of it."""
    parts = [[part.strip() for part in plain(phrase).split("*")] for phrase in phrases]
    return tuple((of[0], re.compile(rf"(?<!\w){_GAP.join(map(re.escape, of))}(?!\w)")) for of in parts)
