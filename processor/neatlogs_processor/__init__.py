"""The processor: receives OTLP, enforces one end user per trace, and forwards."""
