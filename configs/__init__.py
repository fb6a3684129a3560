"""Run settings as ml_collections ConfigDicts; installed as `stag_configs`."""
