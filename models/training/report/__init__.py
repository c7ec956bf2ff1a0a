"""`make models-report`: how well the fused recurrence model holds, and where it does not."""
