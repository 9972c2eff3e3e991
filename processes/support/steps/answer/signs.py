"""Urgency and sentiment by words: small, the same for everybody, and wrong in ways that a person can foresee.

Only whole words count, in English, German, French and Spanish. Urgent before high before low, else normal. Sentiment is
the sign of (friendly words - unfriendly words), where shouting (several `!`, or a text in capitals) counts as one
unfriendly word.
"""

import re
from typing import Final

from processes.support import text
from processes.support.steps.answer.output import Sentiment, Urgency


def _any_of(*phrases: str) -> re.Pattern[str]:
    """Any of the phrases as whole words, in a text that `text.plain` made."""
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, phrases)) + r")(?!\w)")


_URGENT: Final = _any_of(
    "urgent", "urgently", "emergency", "immediately", "right now", "asap", "as soon as possible", "fraud", "stolen",
    "hacked", "unauthorized", "unauthorised", "injured", "fire", "smoke", "dringend", "sofort", "notfall", "betrug",
    "urgence", "immédiatement", "fraude", "urgente", "inmediatamente",
)  # fmt: skip
_HIGH: Final = _any_of(
    "today", "tomorrow", "still waiting", "third time", "charged twice", "double charged", "never arrived",
    "locked out", "broken", "damaged", "birthday", "wedding", "heute", "morgen", "kaputt", "beschädigt",
    "aujourd'hui", "demain", "cassé", "hoy", "mañana", "roto",
)  # fmt: skip
_LOW: Final = _any_of(
    "newsletter", "feedback", "review", "opinion", "just wondering", "no rush", "no hurry", "when you have time",
    "keine eile", "pas pressé", "sin prisa",
)  # fmt: skip
_UNFRIENDLY: Final = _any_of(
    "bad", "awful", "terrible", "horrible", "worst", "unacceptable", "ridiculous", "disappointed", "disappointing",
    "angry", "furious", "fed up", "disgrace", "disgusting", "useless", "scam", "rip-off", "cheated", "liar", "liars",
    "bloody", "damn", "goddamn", "fucking", "shit", "crap", "hell", "stupid", "annoying", "annoyed", "hate", "unhappy",
    "sick of", "joke", "never again", "schlecht", "furchtbar", "unverschämt", "enttäuscht", "wütend", "frechheit",
    "mauvais", "scandaleux", "inadmissible", "déçu", "déçue", "honteux", "malo", "pésimo", "inaceptable",
    "decepcionado", "vergüenza",
)  # fmt: skip
_FRIENDLY: Final = _any_of(
    "thank you", "thanks", "great", "love", "lovely", "wonderful", "excellent", "perfect", "happy", "appreciate",
    "kind regards", "danke", "vielen dank", "toll", "super", "merci", "parfait", "gracias", "excelente", "encantado",
    "encantada",
)  # fmt: skip
_SHOUT = re.compile(r"!{2,}|!\s[^!]{1,200}!\s[^!]{1,200}!")
_LETTERS_MIN = 20
_CAPITALS_SHARE = 0.7


def urgency(words: str) -> Urgency:
    """How long the customer can wait, by the words used."""
    plain = text.plain(words)
    if _URGENT.search(plain):
        return "urgent"
    if _HIGH.search(plain):
        return "high"
    return "low" if _LOW.search(plain) else "normal"


def sentiment(words: str) -> Sentiment:
    """How the customer sounds."""
    plain = text.plain(words)
    sign = len({*_FRIENDLY.findall(plain)}) - len({*_UNFRIENDLY.findall(plain)}) - _shouts(words)
    if sign == 0:
        return "neutral"
    return "positive" if sign > 0 else "negative"


def _shouts(words: str) -> bool:
    letters = [*filter(str.isalpha, words[: text.READ_CHARACTERS_MAX])]
    loud = len(letters) >= _LETTERS_MIN and sum(map(str.isupper, letters)) >= _CAPITALS_SHARE * len(letters)
    return loud or _SHOUT.search(words[: text.READ_CHARACTERS_MAX]) is not None
