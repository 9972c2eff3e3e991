"""What models cost, read from a dated list. What the list does not say costs nobody a guess: it is refused."""

import tomllib
from datetime import date, timedelta
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.classifier.domain.lines import line_of

_ZONES = timedelta(days=1)
"""Somewhere it is tomorrow already."""
_MILLION = Decimal(1_000_000)
_RATE_MAX = 1_000_000
"""Of any token, far beyond any model: what is dearer is a slip of the pen."""
_NO_DAY = "is no day: write one as 2026-11-27"
_MENDS = {
    "extra_forbidden": "is no field of a price: take it out, or write it as one of the shipped prices.toml",
    "missing": "is missing: add it",
    "greater_than_equal": "is negative: a price is 0 or more US dollars per million tokens",
    "less_than_equal": f"is no price: it is {_RATE_MAX} US dollars per million tokens at most",
    "date_from_datetime_parsing": _NO_DAY,
    "date_from_datetime_inexact": _NO_DAY,
}
"""By pydantic's type of error; others are told in pydantic's words."""


class PricesInvalidError(Exception):
    """A price list that cannot be counted with; the message names the line and the mend."""


class UnknownPriceError(PricesInvalidError):
    """A model whose price is not known: it does not start."""

    def __init__(self, model: str, known: str) -> None:
        super().__init__(
            f"the price of {model!r} is not known: name {known}, or write it into a list of your own as prices.toml "
            "is (NIGHTSHIFT_PRICES_FILE)"
        )
        self.model = model


class ModelEndedError(PricesInvalidError):
    """A model that its vendor answers no more for: it does not start."""

    def __init__(self, model: str, ended: date, known: str) -> None:
        super().__init__(
            f"{model!r} is past its end of life, which was {ended}: name {known} (where its vendor gave it more time, "
            "NIGHTSHIFT_PRICES_FILE may say so under [ends])"
        )
        self.model = model


class _Rates(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Decimal = Field(ge=0, le=_RATE_MAX)
    output: Decimal = Field(ge=0, le=_RATE_MAX)
    cache_write: Decimal = Field(ge=0, le=_RATE_MAX)
    cache_read: Decimal = Field(ge=0, le=_RATE_MAX)


class _LongRates(_Rates):
    above_tokens: int = Field(gt=0)


class Price(_Rates):
    """US dollars per million tokens."""

    effort: Literal["low", "medium", "high"] | None = None
    long: _LongRates | None = None

    def cost_usd(self, *, sent: int, written: int, read: int, answered: int) -> Decimal:
        """What a call cost, unrounded: tokens sent, of these apart what was written to and read from the cache."""
        rates: _Rates = self.long if self.long is not None and sent + written + read > self.long.above_tokens else self
        return (
            sent * rates.input + written * rates.cache_write + read * rates.cache_read + answered * rates.output
        ) / _MILLION

    def cost_usd_max(self, *, sent: int, answered: int) -> Decimal:
        """The most that a call of at most so many tokens costs, whatever of it the cache holds."""
        rates = [self] if self.long is None or sent <= self.long.above_tokens else [self, self.long]
        dearest = max(max(rate.input, rate.cache_write, rate.cache_read) for rate in rates)
        return (sent * dearest + answered * max(rate.output for rate in rates)) / _MILLION


class PriceList(BaseModel):
    """What is known of models, by the names their vendors give them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date
    """Prices change: as they were published by this day."""
    models: dict[str, Price]
    vendors: dict[str, Price] = Field(default_factory=dict)
    """Of every model of the vendor that `models` does not name."""
    ends: dict[str, date] = Field(default_factory=dict)
    """By model: the day from which its vendor answers no more."""

    def under(self, own: "PriceList") -> "PriceList":
        """Both; what `own` says of a model or vendor goes before what this says."""
        return PriceList(
            as_of=max(self.as_of, own.as_of),
            models={**self.models, **own.models},
            vendors={**self.vendors, **own.vendors},
            ends={**self.ends, **own.ends},
        )

    def price_of(self, vendor: str, model: str, *, today: date) -> Price:
        """Raises UnknownPriceError, ModelEndedError."""
        if (ended := self.ends.get(model)) is not None and ended <= today:
            raise ModelEndedError(model, ended, self.known(today))
        price = self.models.get(model, self.vendors.get(vendor))
        if price is None:
            raise UnknownPriceError(model, self.known(today))
        return price

    def known(self, today: date) -> str:
        """The models that may be named on a day, for a sentence."""
        alive = sorted(name for name in self.models if self.ends.get(name, date.max) > today)
        return ", ".join(["one of " + ", ".join(alive), *(f"any of {vendor}" for vendor in sorted(self.vendors))])


def parse(text: str, name: str, *, today: date | None = None) -> PriceList:
    """`name` is what errors call the list; with `today` one of a later day is refused. Raises PricesInvalidError."""
    try:
        read = PriceList.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise PricesInvalidError(f"{name} is no TOML: {error}") from error
    except RecursionError as error:
        raise PricesInvalidError(f"{name} is no price list, it nests too deeply: write it as prices.toml is") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = tuple(map(str, first["loc"]))
        what = _MENDS.get(first["type"], f"cannot be read: {first['msg']}")
        raise PricesInvalidError(f"{name}, line {line_of(text, path)}: {'.'.join(path)} {what}") from error
    if today is not None and read.as_of > today + _ZONES:
        raise PricesInvalidError(
            f"{name}, line {line_of(text, ('as_of',))}: as_of is {read.as_of}, which is still to come: write the day "
            "on which you looked the prices up"
        )
    return read
