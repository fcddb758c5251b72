"""Pages that are made at build: the reference from the registry, results from the CSVs in reports/results."""
