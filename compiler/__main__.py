"""`python -m planish` is `planish`."""

from planish.cli.app import main

if __name__ == "__main__":
    main()
