"""The traces page: what a person sees of the store, and who may see it. It reads through `query.reader` alone."""
