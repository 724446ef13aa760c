"""What every question to AWS shares: who asks, about which stack, where the answers are kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from deploy.template import Budget, read_budgets

Answer = TypeVar("Answer")


class RefusedError(Exception):
    """The deployment would fail; the sentence says why and what to do."""


@dataclass(slots=True)
class Questions:
    """One deployment's questions; `client` makes a boto3 client by service name."""

    client: Callable[[str], Any]
    region: str
    stack: str
    parameters: dict[str, str]  # what is overridden; what is chosen is added
    template: Mapping[str, Any]
    rows: list[tuple[str, str]] = field(default_factory=list)
    deployed: dict[str, str] = field(default_factory=dict)  # the stack's parameters as it is now
    outputs: dict[str, str] = field(default_factory=dict)  # and what it gives out

    def say(self, question: str, answer: str) -> None:
        """A line of the table."""
        self.rows.append((question, answer))

    def ask(self, question: str, permission: str, call: Callable[[], Answer]) -> Answer | None:
        """The answer, or None with a row that says why there is none."""
        try:
            return call()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if "AccessDenied" in code or "Unauthorized" in code:
                self.say(question, f"unknown, {permission} is not allowed to you")
            else:
                self.say(question, f"unknown, AWS answered {code}")
        except BotoCoreError as error:
            self.say(question, f"unknown, {error}")
        return None

    def parameter(self, name: str) -> str:
        """What the stack will have: `sam deploy` keeps what it has and nobody overrides."""
        default = str(self.template["Parameters"][name].get("Default", ""))
        return self.parameters.get(name, self.deployed.get(name, default))

    @property
    def is_new(self) -> bool:
        """Whether the stack is made by this deployment."""
        return not self.deployed

    @property
    def makes_data(self) -> bool:
        """Whether network and database are this stack's own."""
        return not self.parameter("DatabaseHost")

    @property
    def makes_functions(self) -> bool:
        """Whether this stack has functions."""
        return self.parameter("DataOnly") == "false"

    def budget(self, name: str) -> Budget:
        """The connections of a class; refuses one that has none."""
        budgets = read_budgets(self.template)
        if name not in budgets:
            raise RefusedError(
                f"DatabaseInstanceClass is {name!r}; expected one of {', '.join(budgets)}, or a "
                "new line in template.yaml's mapping InstanceClasses with its connection budget."
            )
        return budgets[name]
