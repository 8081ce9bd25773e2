"""Where every row will live and what that costs: counts, cost model, calibration, the explained plan, packing."""
