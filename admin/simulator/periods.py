"""When a billing period ends: calendar arithmetic from an anchor.

It must never count from the last period's end: a subscription begun on 31 January is billed on 28 February and then on
31 March again, which only the anchor knows.
"""

from __future__ import annotations

import calendar
from datetime import UTC, datetime
from typing import Final, Literal

Interval = Literal["day", "week", "month", "year"]
INTERVALS: Final[tuple[Interval, ...]] = ("day", "week", "month", "year")
LONGEST_COUNT: Final[dict[Interval, int]] = {"day": 1095, "week": 156, "month": 36, "year": 3}
"""Stripe's own limit: three years."""

_SECONDS: Final = {"day": 86400, "week": 7 * 86400}
_ABOUT_A_MONTH: Final = 27 * 86400


def end_of_period(anchor: int, after: int, interval: Interval, count: int) -> int:
    """The first of `anchor`, `anchor` plus one interval, plus two, … that is later than `after`."""
    if interval in _SECONDS:
        step = _SECONDS[interval] * count
        return anchor + ((after - anchor) // step + 1) * step
    months = count * (12 if interval == "year" else 1)
    # The lower bound is a whole number of periods that surely lies at or before the one looked for.
    periods = (after - anchor) // (_ABOUT_A_MONTH * months) + 2 if after > anchor else 1
    while periods > 1 and _months_later(anchor, (periods - 1) * months) > after:
        periods -= 1
    while _months_later(anchor, periods * months) <= after:
        periods += 1
    return _months_later(anchor, periods * months)


def _months_later(anchor: int, months: int) -> int:
    start = datetime.fromtimestamp(anchor, UTC)
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    day = min(start.day, calendar.monthrange(year, month + 1)[1])
    return int(start.replace(year=year, month=month + 1, day=day).timestamp())
