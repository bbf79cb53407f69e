"""What sends: one module per protocol, and the links around them."""
