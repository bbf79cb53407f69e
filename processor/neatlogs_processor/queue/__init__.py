"""The durable queue: what was acknowledged is on disk until the upstream has accepted it."""
