"""Durable functions: no connection lives across a wait, by the real SDK on a real server."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest
from single_connection.testing import LambdaContext

from layers.single_connection.tests.conftest import World

sdk = pytest.importorskip(
    "aws_durable_execution_sdk_python",
    reason="run `pip install aws-durable-execution-sdk-python`",
)
service = pytest.importorskip("aws_durable_execution_sdk_python.lambda_service")
execution = pytest.importorskip("aws_durable_execution_sdk_python.execution")
Duration = pytest.importorskip("aws_durable_execution_sdk_python.config").Duration

IDENTITY = ("Id", "ParentId", "Type", "SubType", "Name")


class Journal:
    """The service that an execution's steps are written to, as much of it as the SDK asks for."""

    def __init__(self) -> None:
        now = dt.datetime.now(dt.UTC)
        self.operations: dict[str, dict[str, Any]] = {
            "execution": {
                "Id": "execution",
                "Type": "EXECUTION",
                "Status": "STARTED",
                "StartTimestamp": now,
                "ExecutionDetails": {"InputPayload": "{}"},
            }
        }
        self._later = now + dt.timedelta(minutes=1)

    def checkpoint(self, *, updates: list[Any], **_ids: Any) -> Any:
        """Each update becomes what the service would say of it from then on."""
        for update in updates:
            said = update.to_dict()
            status = {"START": "STARTED", "SUCCEED": "SUCCEEDED", "FAIL": "FAILED"}[said["Action"]]
            who = {key: said[key] for key in IDENTITY if key in said}
            operation = self.operations.setdefault(said["Id"], who)
            operation["Status"] = status
            if said["Type"] == "STEP":
                operation["StepDetails"] = {"Attempt": 1, "Result": said.get("Payload")}
            if said["Type"] == "WAIT":
                operation["WaitDetails"] = {"ScheduledEndTimestamp": self._later}
        return service.CheckpointOutput.from_dict(
            {
                "CheckpointToken": "next",
                "NewExecutionState": {"Operations": list(self.operations.values())},
            }
        )

    def get_execution_state(self, *_: Any) -> Any:
        """Everything was said at the start."""
        raise AssertionError

    def time_passes(self) -> None:
        """Whatever was waited for is over."""
        waiting = [one for one in self.operations.values() if one["Type"] == "WAIT"]
        assert waiting
        for one in waiting:
            one["Status"] = "SUCCEEDED"

    def invoke(self, handler: Callable[[Any, Any], Any]) -> Any:
        """As Lambda calls: with all that is written, from the start."""
        state = execution.InitialExecutionState.from_dict(
            {"Operations": list(self.operations.values())}
        )
        event = execution.DurableExecutionInvocationInputWithClient(
            durable_execution_arn="arn:aws:lambda:us-east-1:123456789012:function:shop:1/durable/1",
            checkpoint_token="first",
            initial_execution_state=state,
            service_client=self,
        )
        return handler(event, LambdaContext(10))


def test_a_wait_ends_the_connection_and_what_follows_it_has_one_of_its_own(world: World) -> None:
    world.stock(bolt=5)
    database = world.database()

    def take(_step: Any) -> int:
        with database.transaction() as cursor:
            cursor.execute("UPDATE things SET number = number - 1")
        return database.connection().thread_id()

    @database.invocation
    @sdk.durable_execution
    def handler(_event: Any, context: Any) -> list[int]:
        before = context.step(take, name="before")
        context.wait(Duration.from_seconds(60))
        return [before, context.step(take, name="after")]

    journal = Journal()
    assert journal.invoke(handler)["Status"] == "PENDING"
    world.wait_for(lambda: not world.sessions())
    assert world.things() == {"bolt": 4}
    journal.time_passes()
    answer = journal.invoke(handler)
    assert answer["Status"] == "SUCCEEDED"
    before, after = json.loads(answer["Result"])
    assert before != after
    world.wait_for(lambda: not world.sessions())
    assert world.things() == {"bolt": 3}, "the first step is replayed from the journal"


def test_a_transaction_that_waits_is_rolled_back(world: World) -> None:
    world.stock(bolt=5)
    database = world.database()

    @database.invocation
    @sdk.durable_execution
    def handler(_event: Any, context: Any) -> None:
        with database.transaction() as cursor:
            cursor.execute("UPDATE things SET number = number - 1")
            context.wait(Duration.from_seconds(60))

    journal = Journal()
    assert journal.invoke(handler)["Status"] == "PENDING"
    world.wait_for(lambda: not world.sessions())
    assert world.things() == {"bolt": 5}


def test_the_marks_the_other_way_round_are_refused(world: World) -> None:
    """The durable context tells no time; the invocation is outside, where Lambda's own is."""
    database = world.database()

    @sdk.durable_execution
    @database.invocation
    def handler(_event: Any, context: Any) -> None:
        context.step(lambda _step: database.connection().ping())

    answer = Journal().invoke(handler)
    assert answer["Status"] == "FAILED"
    assert "TypeError" in json.dumps(answer["Error"])
    assert world.sessions() == []
