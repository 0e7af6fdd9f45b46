"""What people look at: a terminal, a browser."""
