"""What `make deploy` asks before it deploys, and what the stack costs."""
