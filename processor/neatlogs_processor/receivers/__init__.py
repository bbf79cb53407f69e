"""What listens: one module per protocol."""
