"""The one loop that every strategy goes through, its settings, schedule and result."""
