"""A database and a Lambda on your own machine: no Docker, no AWS, nothing left behind."""
