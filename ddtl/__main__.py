"""``python -m ddtl`` is the installed command ``ddtl``."""

from ddtl.cli import script

if __name__ == "__main__":
    script()
