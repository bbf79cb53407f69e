"""Holds the spans of a trace until its root arrives, so that all of them can say who its end user is."""
