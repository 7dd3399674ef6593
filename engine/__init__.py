"""The engine: records, schema, storage, configuration, ingest, the Ray runner and the command line."""
