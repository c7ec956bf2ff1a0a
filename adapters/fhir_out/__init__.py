"""What this server concluded, as FHIR R4 resources for others. Pure: who may have them, the roof decides."""
