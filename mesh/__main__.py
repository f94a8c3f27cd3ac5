"""`python -m mesh`: the command line, where no `mesh` script is on PATH."""

from mesh.cli.main import main

if __name__ == "__main__":
    main()
