"""The terms by which a text is indexed and asked: words without their endings, each with its language. Pure."""

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from typing import Final

import snowballstemmer

STEMMER: Final = f"snowballstemmer-{version('snowballstemmer')}"
"""What terms depend on; part of index versions."""
TEXT_CHARACTERS_MAX: Final = 4000
_WORD = re.compile(r"[^\W_]+")
_ALGORITHMS: Final[Mapping[str, str]] = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "et": "estonian", "eu": "basque", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi",
    "hu": "hungarian", "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian", "ne": "nepali",
    "nl": "dutch", "no": "norwegian", "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian",
    "sr": "serbian", "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip


def terms_of(text: str, language: str) -> list[str]:
    """Every term of a text, in order, as `de:liefer`; words of a language without a stemmer keep their endings."""
    plain = unicodedata.normalize("NFKC", text[:TEXT_CHARACTERS_MAX].lower())
    return [_term(word, language) for word in _WORD.findall(plain)]


@lru_cache(maxsize=65_536)
def _term(word: str, language: str) -> str:
    algorithm = _ALGORITHMS.get(language)
    stem = word if algorithm is None else snowballstemmer.stemmer(algorithm).stemWord(word)
    return f"{language}:{stem}"
