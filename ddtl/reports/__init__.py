"""Stored records to pages, charts and texts, for whoever reads a result; no torch, nothing computed that is not stored.

``run``, ``sweep``, ``study``, ``comparison`` and ``audit`` make a page each: a list of sections, a file each, with its
numbers, its words and its charts. To add a chart to a page, add it to the file of its section. What several pages show
is in ``sections``; blocks, charts and number formats are in ``html``. Longer text is in ``templates``, see ``prose``.
"""
