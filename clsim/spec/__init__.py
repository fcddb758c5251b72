"""What a run is: its tables, from names and files to one frozen spec. Neither torch nor Avalanche is imported."""
