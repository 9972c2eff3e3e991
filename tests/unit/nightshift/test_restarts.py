from pathlib import Path

import pytest

from nightshift.supervisor import LOG_BYTES_MAX, restart_seconds, rotate


@pytest.mark.parametrize(("deaths", "seconds"), [(1, 0.1), (2, 0.2), (7, 6.4), (8, 10.0), (1000, 10.0)])
def test_a_service_that_keeps_dying_waits_longer_each_time_up_to_ten_seconds(deaths: int, seconds: float) -> None:
    assert restart_seconds(deaths) == pytest.approx(seconds)


def test_a_log_at_its_limit_is_kept_and_one_above_it_is_set_aside(tmp_path: Path) -> None:
    log = tmp_path / "actor.log"
    with log.open("wb") as file:
        file.truncate(LOG_BYTES_MAX)

    rotate(log)
    assert log.exists()

    with log.open("ab") as file:
        file.write(b"x")
    rotate(log)
    assert not log.exists()
    assert (tmp_path / "actor.log.1").exists()


def test_only_the_three_newest_old_logs_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "actor.log"
    for life in range(6):
        with log.open("wb") as file:
            file.write(str(life).encode())
            file.truncate(LOG_BYTES_MAX + 1)
        rotate(log)

    kept = {path.name: path.read_bytes()[:1] for path in tmp_path.iterdir()}
    assert kept == {"actor.log.1": b"5", "actor.log.2": b"4", "actor.log.3": b"3"}
