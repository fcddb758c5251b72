"""Execution: how one run, a study, a selection or a condensation is carried out."""
