"""How far a score can be trusted: intervals of rates, means over seeds and paired differences; how plots are drawn."""
