"""``python -m clsim``: the command ``clsim``."""

from clsim.cli.main import main

if __name__ == "__main__":
    main()
