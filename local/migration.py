"""A local database brought up to date as a deployment does: through the project's own function."""

from collections.abc import Mapping

from local.changes import fingerprint
from local.database import LocalDatabase
from local.environment import Answer
from local.kept import KeptDatabase
from local.template import Function, TemplateError, read_functions


class MigrationError(RuntimeError):
    """The migrations did not succeed; carries the function's answer and log."""


def migrates(function: Function) -> bool:
    """Whether it makes the schema and the application user: then it runs as the master user."""
    return "APPLICATION_USER" in function.environ


def database_environ(function: Function, database: LocalDatabase) -> Mapping[str, str]:
    """The local database's settings for that function; the master user's to migrate with."""
    application = database.application_environ()
    if not migrates(function):
        return application
    return {
        **database.master_environ(),
        "APPLICATION_USER": application["DATABASE_USER"],
        "APPLICATION_PASSWORD": application["DATABASE_PASSWORD"],
    }


def migration_function() -> Function:
    """The function of the template that migrates.

    Raises:
        TemplateError: there is none.
    """
    for function in read_functions().values():
        if migrates(function):
            return function
    raise TemplateError(
        "template.yaml has no function with a variable APPLICATION_USER, so none that migrates"
    )


async def migrate(database: LocalDatabase, function: Function | None = None) -> Answer:
    """Bring the database up to date, through the template's function or the one given.

    Raises:
        MigrationError: the function answered anything but success.
    """
    function = function or migration_function()
    async with function.environment(database_environ(function, database)) as environment:
        answer = await environment.invoke({})
    if answer.status != "ok":
        raise MigrationError(
            f"{function.name} answered {answer.payload.decode(errors='replace')}\n{answer.log}"
        )
    return answer


async def bring_up_to_date(kept: KeptDatabase) -> Answer | None:
    """Migrate a database that stays, where the function's files have changed since it last was."""
    files = fingerprint([migration_function().directory])
    if kept.migrated == files:
        return None
    answer = await migrate(kept)
    kept.note_migration(files)
    return answer
