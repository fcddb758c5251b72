"""How runs are carried out: one, a study of many, or a choice out of a data set."""
