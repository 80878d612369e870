"""How good is an attribution map? Measures, controls, the benchmark and its reports.

energy        the fraction of the map's energy on the object
perturbation  pointing game, deletion, insertion
localisation  from a map to a box, and the localisation error
sanity        does the map depend on what the network has learnt?
statistics    bootstrap intervals, rank correlations between measures
methods       the registry of all methods
benchmark     the run over images, networks, methods and sizes; report, overview: its results
"""

from __future__ import annotations
