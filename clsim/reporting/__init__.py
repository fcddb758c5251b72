"""Reports for people: tables, figures, progress."""
