"""What rules are told beyond the case: read by index or from running sums, whatever the number of cases that were."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from contracts.decision import Circumstances
from services.runtime.postgres import Connection

HISTORY_HOURS_MAX = 28 * 24
_HOUR = timedelta(hours=1)

_CASES = """
SELECT w.case_id,
       (SELECT count(*) FROM cases c
        WHERE c.process = $1 AND c.party = w.party AND c.is_open AND c.case_id <> w.case_id) AS others,
       (SELECT count(*) FROM effects e WHERE e.case_id = w.case_id AND e.kind <> 'notice'
        AND e.attempted_at > $4::timestamptz - interval '1 hour') AS effects,
       (SELECT hour FROM label_hours WHERE process = $1 ORDER BY hour LIMIT 1) AS first_hour
FROM unnest($2::text[], $3::text[]) w(case_id, party)
"""
_LABELS = """
SELECT label, sum(count) FILTER (WHERE hour = date_trunc('hour', $3::timestamptz, 'UTC')) AS this_hour,
       sum(count) FILTER (WHERE hour = date_trunc('hour', $3::timestamptz, 'UTC') - interval '1 hour') AS last_hour,
       sum(count) FILTER (WHERE hour < date_trunc('hour', $3::timestamptz, 'UTC')) AS before
FROM label_hours WHERE process = $1 AND label = ANY($2)
  AND hour >= date_trunc('hour', $3::timestamptz, 'UTC') - interval '28 days' AND hour <= $3
GROUP BY label
"""
_COUNT = """
INSERT INTO label_hours AS h (process, label, hour, count)
SELECT $1, label, date_trunc('hour', clock_timestamp(), 'UTC'), count(*) FROM unnest($2::text[]) l(label)
GROUP BY label ORDER BY label
ON CONFLICT (process, label, hour) DO UPDATE SET count = h.count + excluded.count
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose circumstances are wanted."""

    case_id: str
    party: str | None
    label: str


async def circumstances_of(
    connection: Connection, process: str, asked: Sequence[Asked], now: datetime
) -> dict[str, Circumstances]:
    """By case id, as of `now`. The hour in progress is completed by its share of the hour before."""
    case_ids = [a.case_id for a in asked]
    rows = await connection.fetch(_CASES, process, case_ids, [a.party for a in asked], now)
    around = {row["case_id"]: row for row in rows}
    labels = {row["label"]: row for row in await connection.fetch(_LABELS, process, [a.label for a in asked], now)}
    first = rows[0]["first_hour"] if rows else None
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    hours = 0.0 if first is None else min(float(HISTORY_HOURS_MAX), max(0.0, (this_hour - first) / _HOUR))
    left_of_last = 1.0 - (now - this_hour) / _HOUR

    def of(one: Asked) -> Circumstances:
        row = labels.get(one.label)
        return Circumstances(
            other_open_cases_of_party=around[one.case_id]["others"],
            label_count_last_hour=0
            if row is None
            else int((row["this_hour"] or 0) + round(float(row["last_hour"] or 0) * left_of_last)),
            label_usual_per_hour=float(row["before"] or 0) / hours if row is not None and hours else 0.0,
            effects_of_case_last_hour=around[one.case_id]["effects"],
            hours_of_history=hours,
        )

    return {one.case_id: of(one) for one in asked}


async def count_labels(connection: Connection, process: str, labels: Sequence[str]) -> None:
    """Add decided labels to the running sums of this hour."""
    if labels:
        await connection.execute(_COUNT, process, list(labels))
