"""What ddtl reads back from disk: each kind of record with its schema, checked once where it is read.

A record may come from a stranger. Its shape is checked here, so that its readers can rely on it; the message of a
refusal names the file and the key, never what is there. Further keys are allowed, for later versions add some; keys
that earlier versions did not write may be absent.
"""
