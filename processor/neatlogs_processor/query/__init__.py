"""What may be asked of the store and what it answers: filters, the state of a view, rows. No database, no clock."""
