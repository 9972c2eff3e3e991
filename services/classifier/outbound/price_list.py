"""The price list that is in force: the shipped one, and before it the operator's own."""

from datetime import UTC, date
from functools import cache
from pathlib import Path

from services.classifier.domain.prices import Price, PriceList, parse
from services.runtime import outside


@cache
def prices(own: str | None = None) -> PriceList:
    """What `own`, a list of the same form, says goes before what is shipped. Raises PricesInvalidError."""
    shipped = parse((Path(__file__).parent / "prices.toml").read_text(encoding="utf-8"), "prices.toml")
    return shipped if own is None else shipped.under(parse(own, "NIGHTSHIFT_PRICES", today=_today()))


def price_of(vendor: str, model: str, own: str | None) -> Price:
    """What a model costs that may be asked today. Raises PricesInvalidError, UnknownPriceError, ModelEndedError."""
    return prices(own).price_of(vendor, model, today=_today())


def known_models(own: str | None) -> str:
    """The models that may be asked today, for a sentence. Raises PricesInvalidError."""
    return prices(own).known(_today())


def _today() -> date:
    return outside.clock().astimezone(UTC).date()
