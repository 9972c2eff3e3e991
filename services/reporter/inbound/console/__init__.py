"""The operator's page: server-rendered, nothing from elsewhere, works without JavaScript."""
