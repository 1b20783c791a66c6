"""What a plan costs each vehicle: events, accountants, the lifetime filter, calibration, plain words."""
