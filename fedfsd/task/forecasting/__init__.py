"""Motion forecasting: from a vehicle's last seconds to its path."""
