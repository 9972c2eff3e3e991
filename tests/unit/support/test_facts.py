"""What is looked up: the requester's own records, and nobody else's."""

from processes.support import facts as books
from services.runtime.process import load
from tests.unit.support.tickets import OURS, comment, created, facts, revealed


def test_the_requesters_records_are_looked_up() -> None:
    queries = books.queries(revealed(created()))

    assert [query.query for query in queries] == ["customer", "orders", "invoices", "tickets"]
    assert all(query.params == {"requester_id": "501"} for query in queries)


def test_an_order_in_the_text_is_looked_up_among_the_requesters_own() -> None:
    queries = books.queries(revealed(created("order 100200300 is late")))

    assert [(query.name, query.query) for query in queries[4:]] == [
        ("order_1", "order_of_number"),
        ("invoices_1", "invoices_of_number"),
    ]
    assert queries[4].params == {"requester_id": "501", "order_number": "100200300"}


def test_no_name_of_a_look_up_quotes_the_customer() -> None:
    queries = books.queries(revealed(created("order 100200300 is late")))

    assert not any("100200300" in query.name + query.query for query in queries)


def test_nothing_is_looked_up_for_nobody() -> None:
    assert [*books.queries(revealed(created(fields={"requester_id": ""})))] == []


def test_every_query_stands_in_process_toml_with_these_parameters() -> None:
    source = load("support").settings.sources[books.SOURCE]
    queries = books.queries(revealed(created("order 100200300 is late")))

    assert {query.query for query in queries} == {*source.queries}
    for query in queries:
        assert all(f":{name}" in source.queries[query.query] for name in query.params)


def test_what_was_answered_is_no_longer_the_question() -> None:
    answered = revealed(
        created("order 100200300 is late"),
        comment(1, 10, author="ours", fields=OURS),
        comment(2, 20, "and order 7777?"),
    )

    assert books.question(answered) == "A question\nand order 7777?"
    assert books.named_orders(answered) == ("7777",)


def test_orders_and_invoices_are_found_by_either_look_up() -> None:
    read = facts(
        order_1=[{"order_number": "7777"}],
        invoices_1=[{"invoice_number": "INV-7", "order_number": "7777", "total": "5"}],
    )

    assert {*books.orders(read)} == {"100200300", "7777"}
    assert [row["invoice_number"] for row in books.invoices(read, "7777")] == ["INV-7"]
