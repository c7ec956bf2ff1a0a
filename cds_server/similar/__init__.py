"""Patients whose inputs of a model were like this one's: counted, never shown one by one."""
