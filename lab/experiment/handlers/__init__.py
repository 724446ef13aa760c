"""Three ways to connect, one query: the handlers of the experiment (`lab.experiment`)."""
