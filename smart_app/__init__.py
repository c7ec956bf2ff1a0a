"""The arm that people look at: the SMART app, its pages and its charts."""
