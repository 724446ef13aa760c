"""Docker's part of the local world: a database for `sam local`, and the proof that it works."""
