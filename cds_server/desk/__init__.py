"""What the pages of a case ask for, answered from the record: implements the ports of `smart_app`."""
