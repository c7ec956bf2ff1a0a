"""HL7 v2 as it stands on the wire: frames, messages, times, character sets, answers. Nothing here knows a store."""
