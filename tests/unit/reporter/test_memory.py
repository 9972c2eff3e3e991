"""What the reporter remembers of cases, and what it forgets."""

from services.reporter.domain.log import Entry, entry_of
from services.reporter.outbound.memory import Known, Memory
from tests.unit.reporter.night import records, tell


def entries(number: int) -> list[Entry]:
    return list(map(entry_of, records(tell(str(number), "answered"))))


def test_a_case_is_remembered_as_it_was_kept_last() -> None:
    memory, told = Memory(), entries(1)
    case_id = told[0].case_id

    memory.keep({case_id: Known().and_of(told[:2])})
    memory.keep({case_id: memory.of(case_id).and_of(told[2:])})

    assert [one.event_id for one in memory.of(case_id).told] == [entry.event_id for entry in told]
    assert memory.of("another").told == ()


def test_what_was_not_touched_for_longest_is_forgotten() -> None:
    cases = {str(number): Known().and_of(entries(number)) for number in (1, 2, 3)}
    memory = Memory(bodies_bytes_max=cases["1"].bodies_bytes + cases["3"].bodies_bytes)

    memory.keep({"1": cases["1"], "2": cases["2"]})
    memory.keep({"1": cases["1"]})
    memory.keep({"3": cases["3"]})

    assert [bool(memory.of(number).told) for number in ("1", "2", "3")] == [True, False, True]


def test_a_case_too_large_to_remember_is_not() -> None:
    memory = Memory(bodies_bytes_max=10)

    memory.keep({"1": Known().and_of(entries(1))})

    assert memory.of("1").told == ()
