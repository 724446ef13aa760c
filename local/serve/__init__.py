"""The whole stack on localhost: `make serve`, and a page that shows what the server sees."""
