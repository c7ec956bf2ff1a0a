"""From pixels to features and pictures, on numbers that mean something: calibrated values in patient coordinates."""
