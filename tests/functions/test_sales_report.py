"""The report equals what anyone would compute by hand."""

from __future__ import annotations

import random
import types
from collections import defaultdict
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from typing import Any

import pytest

from local.database import LocalDatabase
from tests.conftest import load_function
from tests.functions.conftest import Load, context

TODAY = datetime.now(UTC).date()
COLUMNS = ("orders", "units", "revenue_cents", "rank_of_day", "share_of_day", "units_of_7_days")


@pytest.fixture
def app(load: Load) -> types.ModuleType:
    return load("sales_report")


def sell(shop: LocalDatabase, day: date, lines: dict[int, tuple[int, int]], at: time) -> None:
    """An order of {product: (quantity, price)}."""
    placed_at = datetime.combine(day, at)
    shop.execute("INSERT INTO orders (customer, placed_at) VALUES ('Ada', %s)", placed_at)
    for product, (quantity, price) in lines.items():
        shop.execute(
            "INSERT INTO order_lines (order_id, product_id, quantity, price_cents)"
            " VALUES (LAST_INSERT_ID(), %s, %s, %s)",
            product,
            quantity,
            price,
        )


def sell_at_random(shop: LocalDatabase, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(60):
        day = TODAY - timedelta(days=draw.randrange(14))
        products = draw.sample(range(1, 5), draw.randint(1, 4))
        lines = {product: (draw.randint(1, 9), draw.choice([0, 100, 333])) for product in products}
        sell(shop, day, lines, draw.choice([time.min, time(12), time(23, 59, 59, 999000)]))


def computed(shop: LocalDatabase) -> dict[tuple[date, int], tuple[Any, ...]]:
    """The report of all days, computed in the most straightforward way."""
    sold: dict[tuple[date, int], list[tuple[int, int]]] = defaultdict(list)
    query = (
        "SELECT placed_at, product_id, quantity, price_cents FROM orders"
        " JOIN order_lines ON order_id = id"
    )
    for row in shop.execute(query):
        cents = row["quantity"] * row["price_cents"]
        sold[row["placed_at"].date(), row["product_id"]].append((row["quantity"], cents))
    units = {key: sum(quantity for quantity, _ in lines) for key, lines in sold.items()}
    revenue = {key: sum(cents for _, cents in lines) for key, lines in sold.items()}
    report = {}
    for (day, product), lines in sold.items():
        of_day = [cents for (other, _), cents in revenue.items() if other == day]
        cents = revenue[day, product]
        report[day, product] = (
            len(lines),
            units[day, product],
            cents,
            1 + sum(other > cents for other in of_day),
            Fraction(cents, sum(of_day)) if sum(of_day) else Fraction(0),
            sum(units.get((day - timedelta(days=back), product), 0) for back in range(7)),
        )
    return report


def stored(shop: LocalDatabase) -> dict[tuple[date, int], tuple[Any, ...]]:
    rows = shop.execute("SELECT * FROM sales_report")
    return {(row["day"], row["product_id"]): tuple(row[c] for c in COLUMNS) for row in rows}


def assert_equal(got: dict[Any, tuple[Any, ...]], wanted: dict[Any, tuple[Any, ...]]) -> None:
    """Shares are kept to five places."""
    assert got.keys() == wanted.keys()
    for key, (*numbers, share, units) in wanted.items():
        *got_numbers, got_share, got_units = got[key]
        assert (got_numbers, got_units) == (numbers, units), key
        assert abs(Fraction(got_share) - share) <= Fraction(1, 10**5), key


@pytest.mark.parametrize("seed", range(3))
def test_the_report_equals_a_straightforward_recomputation(
    app: types.ModuleType, shop: LocalDatabase, seed: int
) -> None:
    sell_at_random(shop, seed)
    answer = app.lambda_handler({"since": "2000-01-01"}, context())
    wanted = computed(shop)
    assert_equal(stored(shop), wanted)
    assert answer == {
        "since": "2000-01-01",
        "days": len({day for day, _ in wanted}),
        "units": sum(row[1] for row in wanted.values()),
        "revenue_cents": sum(row[2] for row in wanted.values()),
    }
    assert shop.sessions() == []


def test_the_report_is_replaced_not_added_to(app: types.ModuleType, shop: LocalDatabase) -> None:
    sell_at_random(shop, 1)
    app.lambda_handler({"since": "2000-01-01"}, context())
    sell_at_random(shop, 2)
    for _ in range(2):
        app.lambda_handler({"since": "2000-01-01"}, context())
        assert_equal(stored(shop), computed(shop))


def test_each_night_brings_yesterday_and_today_up_to_date(
    app: types.ModuleType, shop: LocalDatabase
) -> None:
    for back in range(9):
        sell(shop, TODAY - timedelta(days=back), {1: (1, 900), 2: (back + 1, 1250)}, time(12))
    answer = app.lambda_handler({"source": "aws.scheduler", "detail": "{}"}, context())
    yesterday = TODAY - timedelta(days=1)
    assert answer["since"] == yesterday.isoformat()
    wanted = {key: row for key, row in computed(shop).items() if key[0] >= yesterday}
    assert_equal(stored(shop), wanted)
    assert wanted[TODAY, 1][-1] == 7  # days before `since` count for the last column


def test_a_shop_that_sold_nothing_has_an_empty_report(
    app: types.ModuleType, shop: LocalDatabase
) -> None:
    answer = app.lambda_handler({"since": "2000-01-01"}, context())
    assert (answer["days"], answer["units"], stored(shop)) == (0, 0, {})


def test_the_report_waits_for_no_order_and_no_order_for_it(
    load: Load, app: types.ModuleType, shop: LocalDatabase
) -> None:
    """An order that is just being placed neither blocks the report nor is counted."""
    sell(shop, TODAY, {1: (2, 900)}, time.min)
    shop.execute("START TRANSACTION")
    sell(shop, TODAY, {1: (5, 900)}, time.min)
    answer = app.lambda_handler({}, context(2))
    shop.execute("ROLLBACK")
    assert answer["units"] == 2

    def report_that_is_not_committed_yet(event: object, _: object) -> Any:
        with app.engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
            connection.execute(app.text(app.REPORT), {"since": TODAY})
            # Another session places an order meanwhile, and must not have to wait.
            shop.execute("SET SESSION innodb_lock_wait_timeout = 1")
            try:
                sell(shop, TODAY, {1: (1, 900)}, time.min)
            finally:
                shop.execute("SET SESSION innodb_lock_wait_timeout = DEFAULT")

    app.database.invocation(report_that_is_not_committed_yet)({}, context())


@pytest.mark.parametrize("since", ["yesterday", "", 20260101, "2026-02-30", ["2026-01-01"]])
def test_a_since_that_is_no_day_is_refused_with_a_sentence_and_no_database(
    since: object,
) -> None:
    app = load_function("sales_report")
    with pytest.raises(app.InvalidEventError, match="since must be a day like 2026-01-31"):
        app.lambda_handler({"since": since}, context())


def test_an_event_that_is_no_object_is_refused_with_a_sentence() -> None:
    app = load_function("sales_report")
    with pytest.raises(app.InvalidEventError, match="since must be a day like"):
        app.lambda_handler([], context())
