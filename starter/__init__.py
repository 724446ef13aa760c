"""What makes a copy of this project one's own: its budget, its functions, its name."""
