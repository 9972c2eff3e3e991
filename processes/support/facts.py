"""What to look up for a ticket, before anything is suggested. The queries themselves stand in process.toml."""

from collections.abc import Iterator, Sequence

from contracts.base import Json
from contracts.decision import FactQuery, Facts
from processes.support import case as cases, text
from processes.support.ticket import Case

SOURCE = "shop"
KNOWLEDGE = "knowledge"
"""Not looked up here: the classifier puts the passages that the model was shown among the facts, as rows with `id`."""


def queries(case: Case) -> Sequence[FactQuery]:
    """The requester's customer record, orders, invoices and earlier tickets, and each order that the text names.

    Every query is bound to the requester: an order of somebody else gives no row. Nothing while nobody is known.
    """
    own: Json = {"requester_id": cases.party(case)}
    named = named_orders(case)
    found = []
    for name in names(case, named):
        kind, _, ordinal = name.partition("_")
        params: Json = {**own, "order_number": named[int(ordinal) - 1]} if ordinal else own
        query = f"{kind}_of_number" if ordinal else name
        found.append(FactQuery(name=name, source=SOURCE, query=query, params=params))
    return found


def names(case: Case, named: Sequence[str]) -> Sequence[str]:
    """The names of the queries, where the text names these orders. Events carry them in clear: no word of people's."""
    if cases.party(case) is None:
        return ()
    ordinals = range(1, len(named) + 1)
    return (
        "customer",
        "orders",
        "invoices",
        "tickets",
        *(f"{kind}_{i}" for i in ordinals for kind in ("order", "invoices")),
    )


def question(case: Case) -> str:
    """Everything the customer wrote and nobody has answered: subject and messages, oldest first."""
    texts = (case.text("subject"), *(comment.text for comment in cases.unanswered(case)))
    return "\n".join(text for text in texts if text)


def named_orders(case: Case) -> tuple[str, ...]:
    """The order numbers that the customer names."""
    return text.order_numbers(question(case))


def orders(facts: Facts) -> dict[str, Json]:
    """The requester's orders that were read, by number."""
    return {str(row["order_number"]): row for row in _rows(facts, "orders", "order_")}


def invoices(facts: Facts, order_number: str) -> list[Json]:
    """The invoices of one order, each once."""
    found = {str(row["invoice_number"]): row for row in _rows(facts, "invoices", "invoices_")}
    return [row for row in found.values() if str(row["order_number"]) == order_number]


def _rows(facts: Facts, name: str, prefix: str) -> Iterator[Json]:
    for known, answer in facts.items():
        if known == name or known.startswith(prefix):
            yield from answer.rows
