"""Every strategy on the same footing: same splits and seeds, plain baselines, one table of cost and gain."""
