"""`python -m socodet` is the command `socodet`."""

from socodet.cli import main

if __name__ == "__main__":
    main()
