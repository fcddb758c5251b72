"""Other packages."""
