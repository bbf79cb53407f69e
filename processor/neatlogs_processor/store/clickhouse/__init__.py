"""The trace store on ClickHouse: the Collector's own table of spans, and rollups beside it."""
