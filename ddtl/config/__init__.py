"""From the words on the command line to a frozen, checked ``Config``; nothing here imports torch."""
