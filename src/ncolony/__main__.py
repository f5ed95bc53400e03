"""`python -m ncolony`."""

from ncolony.cli import script

if __name__ == "__main__":
    script()
