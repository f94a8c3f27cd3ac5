"""One module for each command: its options and its help. What it does is in mesh.cli.act, imported when it runs."""
