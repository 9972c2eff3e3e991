from hypothesis import given, strategies as st

from services.runtime.pace import Breaker, Pace


def opened() -> Breaker:
    breaker = Breaker(failures_max=2, open_seconds=10)
    breaker.failed(0.0)
    breaker.failed(1.0)
    return breaker


def test_a_breaker_opens_at_its_limit_and_not_before() -> None:
    breaker = Breaker(failures_max=2, open_seconds=10)

    breaker.failed(0.0)
    assert breaker.state(0.0) == "closed"
    breaker.failed(1.0)

    assert breaker.state(1.0) == "open"
    assert breaker.wait_seconds(3.0) == 8.0


def test_an_answer_between_two_failures_keeps_it_closed() -> None:
    breaker = Breaker(failures_max=2, open_seconds=10)

    breaker.failed(0.0)
    breaker.succeeded()
    breaker.failed(1.0)

    assert breaker.state(1.0) == "closed"


def test_half_open_lets_one_probe_through() -> None:
    breaker = opened()
    assert breaker.state(10.9) == "open"
    assert breaker.state(11.0) == "half_open"
    assert breaker.wait_seconds(11.0) == 0.0

    breaker.begin(11.0)

    assert breaker.wait_seconds(11.0) > 0.0


def test_a_failed_probe_opens_for_the_whole_time_again() -> None:
    breaker = opened()
    breaker.begin(11.0)

    breaker.failed(12.0)

    assert breaker.wait_seconds(12.0) == 10.0


def test_a_probe_that_succeeds_closes() -> None:
    breaker = opened()
    breaker.begin(11.0)

    breaker.succeeded()

    assert breaker.state(11.0) == "closed"


def test_a_probe_that_was_not_made_lets_another_one() -> None:
    breaker = opened()
    breaker.begin(11.0)

    breaker.gave_up()

    assert breaker.wait_seconds(11.0) == 0.0
    assert breaker.state(11.0) == "half_open"


def test_patience_that_is_asked_for_is_given_whole_and_without_a_burst() -> None:
    pace = Pace(per_second=100)
    pace.wait_seconds(0.0)

    pace.pause(5.0, seconds=30)

    assert pace.wait_seconds(34.0) == 1.0
    assert pace.paused(34.9)
    assert pace.wait_seconds(35.0) == 0.0


@given(per_second=st.floats(0.5, 200), gaps=st.lists(st.floats(0, 1, allow_nan=False), min_size=1, max_size=200))
def test_no_window_ever_holds_more_than_rate_and_burst(per_second: float, gaps: list[float]) -> None:
    pace, now, taken = Pace(per_second=per_second), 0.0, 0
    for gap in gaps:
        now += gap
        if pace.wait_seconds(now) == 0.0:
            pace.take(now, 1)
            taken += 1

    assert taken <= now * per_second + max(1.0, per_second * 0.2) + 1e-6


@given(per_second=st.floats(0.5, 200))
def test_whoever_waits_as_told_may_go(per_second: float) -> None:
    pace, now = Pace(per_second=per_second), 0.0
    for _ in range(20):
        now += pace.wait_seconds(now) + 1e-9
        assert pace.wait_seconds(now) == 0.0
        pace.take(now, 1)
