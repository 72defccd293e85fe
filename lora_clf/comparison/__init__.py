"""Every strategy on the same footing: the same splits and seeds, plain baselines, one table of costs and gains."""
