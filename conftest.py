"""Every test may ask for a real database."""

pytest_plugins = ["local.fixtures"]
