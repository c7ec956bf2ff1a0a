"""The SMART app's launches and sessions over the store: what stands behind the ports of `smart_app`."""
