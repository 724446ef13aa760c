"""Keeps the daily sales report: one statement in which the database does the work.

Through SQLAlchemy, a library that wants to pool: its engine gets the invocation's own connection.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from single_connection import Database
from single_connection.sqlalchemy import create_engine
from sqlalchemy import text

logger = Logger()
database = Database.from_environment()
engine = create_engine(database)


@logger.inject_lambda_context
@database.invocation
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Bring the report up to date from yesterday on, or from the day in `since` (YYYY-MM-DD).

    Days are UTC. Running it again, or twice at once, changes nothing: rows are computed from the
    orders and replaced, so a schedule that fires twice or a run that was missed does no harm.
    """
    since = first_day(event)
    # READ COMMITTED: under the default, INSERT … SELECT would lock the orders it reads, and the
    # gaps behind them, so that nobody could place an order while the report is made.
    reader = engine.execution_options(isolation_level="READ COMMITTED")
    with reader.begin() as connection:
        connection.execute(text(REPORT), {"since": since})
        totals = connection.execute(text(TOTALS), {"since": since}).mappings().one()
    report = {"since": since.isoformat(), **{name: int(n) for name, n in totals.items()}}
    logger.info("Report is up to date", extra=report)
    return report


class InvalidEventError(ValueError):
    """The event asks for something this function does not know."""


def first_day(event: dict[str, Any]) -> date:
    """The day the report is computed from: yesterday, so that a day's last orders are counted."""
    given = event.get("since") if isinstance(event, dict) else event
    if given is None:
        return datetime.now(UTC).date() - timedelta(days=1)
    try:
        return date.fromisoformat(given)
    except (TypeError, ValueError) as error:
        raise InvalidEventError(f"since must be a day like 2026-01-31, and is {given!r}") from error


# The columns of the SELECT are named in ON DUPLICATE KEY UPDATE: that works on MySQL and MariaDB,
# where VALUES(column) is deprecated on the one and MySQL's row alias is unknown to the other.
# RANGE counts days, as not every product is sold on every day; TO_DAYS because MariaDB takes
# numbers alone there. 1.0000 because a quotient has just four places more than its dividend.
REPORT = """
INSERT INTO sales_report
    (day, product_id, orders, units, revenue_cents, rank_of_day, share_of_day, units_of_7_days)
WITH sold AS (
    SELECT DATE(orders.placed_at) AS day,
           order_lines.product_id,
           COUNT(*) AS orders,
           SUM(order_lines.quantity) AS units,
           SUM(order_lines.quantity * order_lines.price_cents) AS revenue_cents
    FROM orders JOIN order_lines ON order_lines.order_id = orders.id
    WHERE orders.placed_at >= :since - INTERVAL 6 DAY
    GROUP BY DATE(orders.placed_at), order_lines.product_id
),
ranked AS (
    SELECT sold.*,
           RANK() OVER (PARTITION BY day ORDER BY revenue_cents DESC) AS rank_of_day,
           COALESCE(
               1.0000 * revenue_cents / SUM(revenue_cents) OVER (PARTITION BY day), 0
           ) AS share_of_day,
           SUM(units) OVER (
               PARTITION BY product_id ORDER BY TO_DAYS(day)
               RANGE BETWEEN 6 PRECEDING AND CURRENT ROW
           ) AS units_of_7_days
    FROM sold
)
SELECT day, product_id, orders, units, revenue_cents, rank_of_day, share_of_day, units_of_7_days
FROM ranked
WHERE day >= :since
ON DUPLICATE KEY UPDATE
    orders = ranked.orders,
    units = ranked.units,
    revenue_cents = ranked.revenue_cents,
    rank_of_day = ranked.rank_of_day,
    share_of_day = ranked.share_of_day,
    units_of_7_days = ranked.units_of_7_days
"""

TOTALS = """
SELECT COUNT(DISTINCT day) AS days, COALESCE(SUM(units), 0) AS units,
       COALESCE(SUM(revenue_cents), 0) AS revenue_cents
FROM sales_report WHERE day >= :since
"""
