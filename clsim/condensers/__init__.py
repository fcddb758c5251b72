"""Condensers: functions that make the exemplars of a memory instead of choosing them; one file for each family."""
