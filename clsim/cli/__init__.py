"""The commands of ``clsim``, a file each: they parse and print, and never compute."""
