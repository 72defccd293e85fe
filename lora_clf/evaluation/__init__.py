"""How far a score can be trusted: intervals for rates, for means over seeds and for paired differences."""
