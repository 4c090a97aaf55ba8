"""Leaves that everything may import: errors, files, processes, signals, console. They import nothing else of ddtl."""
