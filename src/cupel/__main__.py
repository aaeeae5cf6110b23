"""`python -m cupel`: the command line, where the script `cupel` is not on the path."""

from cupel.cli import main

if __name__ == "__main__":
    main()
