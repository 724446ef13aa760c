"""The whole of SQLAlchemy's suite, collected in its own pytest session."""

from sqlalchemy.testing.suite import *  # noqa: F403
