"""Whatever the order, the duplicates and the way by which changes are learnt: one ticket is one case."""

from typing import Any

from hypothesis import HealthCheck, given, settings, strategies as st

from contracts.events.cases import CaseChanged
from processes.support import case as cases
from processes.support.case import Case
from tests.unit.support.tickets import at, change, comment, created, fold_all, folded

_STEADY = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)  # the same examples on any machine, however busy it is
_AUTHORS = st.sampled_from(["customer", "staff", "ours", "system", "unknown"])
_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["new", "OPEN", "pending", "solved", "closed", ""]),
        "priority": st.sampled_from(["LOW", "high", ""]),
        "assignee_id": st.sampled_from(["", "77", "78"]),
        "tags": st.sampled_from([(), ("a",), ("b", "a"), ("a", "b")]),
        "requester_id": st.sampled_from(["501", "502"]),
        "channel": st.sampled_from(["email", "web"]),
    },
)
_KINDS = st.sampled_from(
    ["status_changed", "tags_changed", "merged", "soft_deleted", "undeleted", "marked_as_spam", "trigger", "read"]
)


@st.composite
def _changes(draw: st.DrawFn) -> CaseChanged:
    seconds = draw(st.integers(0, 3))
    update = draw(st.sampled_from(["u1", "u2", None, "audit:7", "audit:30", "audit:none"]))
    more: dict[str, Any] = {
        "author": draw(_AUTHORS),
        "fields": draw(_FIELDS),
        "position": draw(st.integers(0, 2)),
        "update_id": update,
        "identity": f"i{draw(st.integers(0, 5))}",
        "received_at": at(draw(st.integers(0, 9))),
    }
    if draw(st.booleans()):
        number = draw(st.integers(1, 4))  # a comment's creation stamp is one fact: it hangs on the id
        more["fields"] = {
            **more["fields"],
            "author_id": draw(st.sampled_from(["501", "77", ""])),
            "author_is_staff": draw(st.sampled_from([True, False, ""])),
            "comment_public": draw(st.sampled_from([True, False, ""])),
            "comment_created_at": at(number % 3).isoformat(),
        }
        return comment(number, seconds, draw(st.sampled_from(["one", "other", None])), **more)
    return change(draw(_KINDS), seconds, **more)


_HISTORIES = st.lists(_changes(), min_size=1, max_size=12)


def _bytes(case: Case) -> str:
    return case.model_dump_json()


@_STEADY
@given(_HISTORIES, st.randoms(use_true_random=False))
def test_any_order_and_any_duplication_give_the_same_case(history: list[CaseChanged], random: Any) -> None:
    shuffled = [*history, *random.choices(history, k=len(history))]
    random.shuffle(shuffled)

    assert _bytes(fold_all(shuffled)) == _bytes(fold_all(history))


@_STEADY
@given(_HISTORIES, st.integers(0, 11), st.integers(0, 11))
def test_any_split_merges_to_the_same_case(history: list[CaseChanged], one: int, other: int) -> None:
    first, second = sorted((one, other))
    parts = [fold_all(part) for part in (history[:first], history[first:second], history[second:]) if part]

    left = parts[0]
    for part in parts[1:]:
        left = cases.merge(left, part)
    right = parts[-1]
    for part in reversed(parts[:-1]):
        right = cases.merge(part, right)

    assert _bytes(left) == _bytes(right) == _bytes(fold_all(history))


@_STEADY
@given(_HISTORIES)
def test_a_case_survives_storage_and_merging_with_itself(history: list[CaseChanged]) -> None:
    case = fold_all(history)

    assert Case.model_validate_json(_bytes(case)) == case
    assert _bytes(cases.merge(case, case)) == _bytes(case)


@_STEADY
@given(_HISTORIES)
def test_every_question_about_a_case_has_an_answer(history: list[CaseChanged]) -> None:
    case = fold_all(history)

    for ask in (cases.basis, cases.awaits_answer, cases.asked_at, cases.opened_at, cases.replied, cases.is_open):
        ask(case)
    for ask_more in (cases.party, cases.stamp, cases.needs_reading, cases.gone):
        ask_more(case)


def test_only_the_newest_comments_are_kept_and_the_case_says_so() -> None:
    many = [comment(n, n, "x") for n in range(1, 202)]

    full, over = fold_all(many[:200]), fold_all(reversed(many))

    assert (len(full.comments), full.more_comments) == (200, False)
    assert (len(over.comments), over.more_comments) == (200, True)
    assert [c.id for c in over.comments][:1] == ["2"]
    assert _bytes(over) == _bytes(cases.merge(fold_all(many[100:]), full))


def test_texts_of_old_comments_are_forgotten() -> None:
    case = fold_all(comment(n, n, "x") for n in range(1, 32))

    assert [c.id for c in case.comments if c.text is None] == ["1"]


def test_fields_fold_by_version_and_then_by_place_in_the_update() -> None:
    late = change("status_changed", 5, fields={"status": "pending"})
    early = change("status_changed", 4, fields={"status": "open"})
    sibling = change("tags_changed", 5, position=1, fields={"status": "solved"})

    assert folded(created(), late, early).value("status") == "pending"
    assert folded(created(), sibling, late).value("status") == "solved"


def test_one_spelling_of_every_value() -> None:
    case = folded(created(fields={"priority": "HIGH", "assignee_id": "", "tags": ("b", "a", "b")}))

    assert case.value("priority") == "high"
    assert case.value("assignee_id") is None
    assert case.tags == ("a", "b")
