"""The rule as pure functions: no I/O, no clock, no chance."""
