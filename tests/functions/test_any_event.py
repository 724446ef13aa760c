"""Whatever comes in as an event: an answer, or an error that says what was expected."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.database import LocalDatabase
from tests.functions.conftest import Load, batch, context

# The same at each run; the database is one for all of a test's examples.
same = settings(
    derandomize=True,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def dictionaries(**likely: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Events of any shape, and often with these keys."""
    return anything | st.fixed_dictionaries(
        {}, optional={k: anything | v for k, v in likely.items()}
    )


def is_delivery(body: Any) -> bool:
    """Said in another way than the worker says it."""
    return (
        isinstance(body, dict)
        and isinstance(body.get("delivery_id"), str)
        and 0 < len(body["delivery_id"]) <= 64
        and all("!" <= character <= "~" for character in body["delivery_id"])
        and all(type(body.get(key)) is int for key in ("product_id", "quantity"))
        and 0 < body["product_id"] <= 4
        and 0 < body["quantity"] <= 1_000_000
    )


def test_of_any_messages_just_those_that_are_deliveries_are_booked(
    load: Load, shop: LocalDatabase
) -> None:
    app = load("stock_worker")
    delivery = st.fixed_dictionaries(
        {
            "delivery_id": st.from_regex(r"[A-Z]{1,3}", fullmatch=True) | anything,
            "product_id": st.integers(-1, 6) | anything,
            "quantity": st.integers(-2, 9) | anything,
        }
    )

    @same
    @given(bodies=st.lists(delivery | anything, max_size=6), good=st.integers(1, 4))
    def hold(bodies: list[Any], good: int) -> None:
        shop.execute("DELETE FROM stock_inbox")
        before = {row["id"]: row["stock"] for row in shop.execute("SELECT * FROM products")}
        last = {"delivery_id": "the-last-one", "product_id": good, "quantity": 7}
        texts = [json.dumps(body) for body in [*bodies, last]]
        failures = app.lambda_handler(batch(*texts), context())["batchItemFailures"]
        failed = {int(failure["itemIdentifier"]) for failure in failures}
        booked: dict[str, tuple[int, int]] = {}
        for number, body in enumerate([*bodies, last]):
            if not is_delivery(body):
                assert number in failed
                continue
            contents = (body["product_id"], body["quantity"])
            first = booked.setdefault(body["delivery_id"], contents)
            assert (number in failed) == (first != contents)
        for product, quantity in booked.values():
            before[product] += quantity
        after = {row["id"]: row["stock"] for row in shop.execute("SELECT * FROM products")}
        assert after == before

    hold()


@pytest.mark.filterwarnings("ignore:No application metrics")
def test_the_census_counts_or_says_what_an_event_must_be(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGEST_INVOCATION_SECONDS", "60")
    app = load("connection_census")

    @same
    @given(event=dictionaries(dry_run=st.booleans()))
    def hold(event: Any) -> None:
        try:
            answer = app.lambda_handler(event, context())
        except app.InvalidEventError as error:
            assert "dry_run true or false" in str(error)  # noqa: PT017 - either is right
        else:
            assert answer["ended"] == []
            assert isinstance(event.get("dry_run", False), bool)

    hold()


def test_the_report_is_made_or_says_what_an_event_must_be(load: Load) -> None:
    app = load("sales_report")

    @same
    @given(event=dictionaries(since=st.dates().map(date.isoformat)))
    def hold(event: Any) -> None:
        try:
            answer = app.lambda_handler(event, context())
        except app.InvalidEventError as error:
            assert "since must be a day like 2026-01-31" in str(error)  # noqa: PT017 - the same
        else:
            assert date.fromisoformat(answer["since"])

    hold()


def test_migrate_migrates_or_says_what_an_event_must_be(
    load: Load, shop: LocalDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {
        **shop.master_environ(),
        "APPLICATION_USER": "application",
        "APPLICATION_PASSWORD": shop.application_environ()["DATABASE_PASSWORD"],
        "APPLICATION_MAX_USER_CONNECTIONS": "55",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    app = load("migrate")
    text = st.text(max_size=20)
    likely = {
        "action": st.just("migrate"),
        "RequestType": st.sampled_from(["Create", "Delete", "Explode"]),
        "ResponseURL": st.sampled_from(["", "::::", "http://", "file:///etc/passwd"]),
        "StackId": text,
        "RequestId": text,
        "LogicalResourceId": text,
        "PhysicalResourceId": text | st.just("x" * 5000),
    }

    @same
    @given(event=dictionaries(**likely))
    def hold(event: Any) -> None:
        try:
            answer = app.lambda_handler(event, context())
        except (app.cloudformation.InvalidEventError, app.cloudformation.UnansweredError) as error:
            assert "must be" in str(error) or "CloudFormation's" in str(error)  # noqa: PT017
        else:
            assert (answer, "RequestType" in event) == (
                {"applied": [], "user": "application"},
                False,
            )

    hold()
