"""The shop under bad hours: `make soak`.

The functions of the template run in real runtimes; customers order, suppliers deliver, the report
and the census are made, while faults drawn from a seed strike environments, server, secrets and
network. Then the books are audited from outside. `faults` is what strikes and when; `proxy` and
`secret_store` stand between the functions and what they need; `stage` is all of it together.
`customers`, `supplier` and `clerk` are the outside world, whose knowledge `ledger` keeps; `books`,
`conduct` and `watch` judge.
"""
