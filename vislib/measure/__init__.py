"""Quality of attribution maps: measures, controls, the benchmark and its reports.

energy        fraction of a map's energy on the object
perturbation  pointing game, deletion, insertion
localisation  from a map to a box, and the localisation error
sanity        dependence of a map on the weights that the network has learnt
statistics    bootstrap intervals, rank correlations between measures
methods       the registry of all methods
benchmark     the run over images, networks, methods and sizes
report        tables and charts of the benchmark
overview      one page with the cost and the results of each method
"""

from __future__ import annotations
