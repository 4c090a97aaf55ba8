"""Image files: safe decoding, DICOM, harmonisation, hashes, lung masks and the cache of decoded images."""
