"""What people see: tables, figures, progress."""
