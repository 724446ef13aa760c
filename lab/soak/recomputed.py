"""The sales report computed a second time, from the orders, in Python: what it should say."""

from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from local.database import LocalDatabase


def wrong_in_report(database: LocalDatabase) -> Iterator[str]:
    """The rows of the days the report was asked for, against the orders: a sentence for each."""
    [today] = database.execute("SELECT UTC_DATE() AS day")
    since = today["day"] - timedelta(days=1)
    written = {
        (row["day"], row["product_id"]): {
            name: Decimal(value) for name, value in row.items() if name not in {"day", "product_id"}
        }
        for row in database.execute("SELECT * FROM sales_report WHERE day >= %s", since)
    }
    computed = _recompute(database, since)
    for place in sorted(written.keys() | computed.keys()):
        if written.get(place) != computed.get(place):
            yield (
                f"the report of {place[0]}, product {place[1]} says {_said(written.get(place))} "
                f"and should say {_said(computed.get(place))}"
            )


def _recompute(database: LocalDatabase, since: date) -> dict[tuple[date, int], dict[str, Any]]:
    units: Counter[tuple[date, int]] = Counter()
    revenue: Counter[tuple[date, int]] = Counter()
    orders: Counter[tuple[date, int]] = Counter()
    for row in database.execute(
        "SELECT DATE(placed_at) AS day, product_id, quantity, order_lines.price_cents AS price"
        " FROM orders JOIN order_lines ON order_id = orders.id"
    ):
        place = (row["day"], row["product_id"])
        orders[place] += 1
        units[place] += row["quantity"]
        revenue[place] += row["quantity"] * row["price"]
    report = {}
    for (day, product), earned in revenue.items():
        if day < since:
            continue
        of_day = [other for (a_day, _), other in revenue.items() if a_day == day]
        # As MySQL divides, with four places more than the dividend; then as the column rounds.
        share = (Decimal(earned) / sum(of_day)).quantize(Decimal("0.00000001"), ROUND_HALF_UP)
        week = [day - timedelta(days=back) for back in range(7)]
        report[day, product] = {
            "orders": Decimal(orders[day, product]),
            "units": Decimal(units[day, product]),
            "revenue_cents": Decimal(earned),
            "rank_of_day": Decimal(1 + sum(other > earned for other in of_day)),
            "share_of_day": share.quantize(Decimal("0.00001"), ROUND_HALF_UP),
            "units_of_7_days": Decimal(sum(units[a_day, product] for a_day in week)),
        }
    return report


def _said(row: dict[str, Any] | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.items()) if row else "nothing"
